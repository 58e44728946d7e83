"""Every page through Streamlit's AppTest, on the embedded SAE and real activations."""

import json
import re
import shutil
import tomllib
from urllib.parse import urlencode

import pytest
from streamlit.testing.v1 import AppTest

from interp.commands.inspecting import again
from interp.commands.labelling import current_marks, label
from interp.workbench import EMBEDDED, Workbench
from tests.conftest import ROOT
from tests.home import own_home


def run(page, **query):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=180)
    app.switch_page(f"interp/ui/pages/{page}.py")
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def editing(feature):
    """A feature's page with its label opened."""
    app = run("feature", feature=feature)
    assert not any(button.label == "Save label" for button in app.button)  # nothing is made of it before
    app.session_state["label-editor"] = True
    app.run()
    assert not app.exception
    return app


def sheet(app):
    """The HTML of a page's sheet."""
    found = [json.loads(each.proto.json)["html"] for each in app.get("bidi_component") if each.proto.json]
    assert len(found) == 1
    return found[0]


def press(app, label):
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception


def at(app, key):
    """A value of the URL, however this Streamlit gives it."""
    value = app.query_params[key]
    return value[0] if isinstance(value, list) else value


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def parts(app):
    """The HTML of every sheet of a page, and what the map was given."""
    given = [json.loads(each.proto.json) for each in app.get("bidi_component") if each.proto.json]
    return "".join(each.get("html", "") for each in given), next((each for each in given if "drawn" in each), {})


def test_the_app_opens_on_the_map_with_figures_and_features_worth_seeing():
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=180).run()
    assert not app.exception
    assert app.title[0].value.startswith("9,216 features of")
    html, drawn = parts(app)
    for said in ("FVU", "0.141 to 0.144", "cause more than controls", "Worth seeing", "name confirmed", "name refuted"):
        assert said in html
    known = json.loads(drawn["drawn"])
    assert len(known["feature"]) == 9210
    assert "t-SNE" in known["how"]
    assert drawn["marked"] == []


def test_an_address_of_before_with_a_search_shows_what_it_finds_and_marks_it():
    app = run("start", q="dead:yes")
    html, drawn = parts(app)
    assert "6 features found" in html
    assert drawn["marked"] == [hit.feature for hit in Workbench.open(EMBEDDED).search("dead:yes", limit=100)]
    assert "did you mean token" in run("start", q="tokn:/a/").error[0].value
    app.text_input[0].set_value("The cat <b>sat</b> down there.").run()
    assert not app.exception
    assert at(app, "text") == "The cat <b>sat</b> down there."
    assert "q" not in app.query_params
    html, drawn = parts(app)
    assert "<b>sat" not in html
    assert drawn["marked"]
    assert "is none of the text" in run("start", text="A cat.", token="99").error[0].value


def test_an_sae_without_an_index_or_a_map_says_what_makes_them(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    assert any("Lay the features out" in button.label for button in run("start", sae=str(checkpoint)).button)
    monkeypatch.setenv("INTERP_FOLDERS", str(tmp_path))
    shutil.copytree(checkpoint, bare := tmp_path / "bare", ignore=shutil.ignore_patterns("index"))
    app = run("start", sae=str(bare))
    assert [error.value for error in app.error] == []
    assert any(button.label == "Build it" for button in app.button)


def test_the_features_page_opens_on_its_table():
    app = run("features")
    assert app.title[0].value == "Features"
    assert len(app.dataframe[0].value) == 500


def test_a_search_in_the_url_is_run_and_a_typed_one_goes_into_the_url():
    app = run("features", q="token:/^ ?(Paris|London)$/")
    assert app.text_input[0].value == "token:/^ ?(Paris|London)$/"
    first = app.dataframe[0].value
    assert 0 < len(first) < 500
    assert first["score"].is_monotonic_decreasing
    app.text_input[0].set_value("density:1e-3..1e-2").run()
    assert at(app, "q") == "density:1e-3..1e-2"
    assert app.dataframe[0].value["density"].between(1e-3, 1e-2).all()


def test_the_conditions_of_a_search_are_chips_that_are_taken_away_and_added():
    app = run("features", q="token:/^ ?(Paris|London)$/ density:1e-5..1e-2")
    assert app.multiselect[0].value == ["token:/^ ?(Paris|London)$/", "density:1e-5..1e-2"]
    app.multiselect[0].set_value(["density:1e-5..1e-2", "confirmed:yes"]).run()
    assert not app.exception
    assert at(app, "q") == "density:1e-5..1e-2 confirmed:yes"
    shown = app.dataframe[0].value
    assert set(shown["status"]) == {"confirmed"}
    assert shown["effect"].notna().any()
    assert shown["firings"].map(len).eq(20).all()
    html, drawn = parts(app)
    assert sorted(drawn["marked"]) == sorted(
        hit.feature for hit in Workbench.open(EMBEDDED).search("density:1e-5..1e-2 confirmed:yes", limit=2000)
    )
    assert "more than its controls" in html
    app.multiselect[0].set_value([]).run()
    assert "q" not in app.query_params


@pytest.mark.parametrize("page", ["start", "features", "feature", "neuron", "prompt", "steer", "library"])
def test_every_link_carries_the_sae_it_came_from(checkpoint, text_folder, monkeypatch, tmp_path, page):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    here = Workbench.open(checkpoint)
    here.save_search("cats", "token:/cat/")
    if page == "neuron":
        here.build_neuron_index(0, str(text_folder), 1024)
    query = {"neuron": {"neuron": "0.3"}, "feature": {"feature": "3"}, "prompt": {"text": "The cat"}}
    app = run(page, sae=str(checkpoint), **query.get(page, {}))
    assert not app.error
    wanted = urlencode({"sae": str(checkpoint)})
    links = [link.proto for link in app.get("page_link")]
    assert len(links) >= 6 + (page in ("features", "feature", "neuron", "prompt"))
    others = [link for link in links if wanted not in link.query_string]
    # The shelf leads to other SAEs, each by its own name.
    assert not others or (page == "library" and all("sae=" in link.query_string for link in others))
    if page == "feature":
        addresses = re.findall(r'href="([^"]*)"', sheet(app))
        assert len(addresses) > 10
        assert all(wanted in address for address in addresses)
    if page != "library":
        assert at(app, "sae") == str(checkpoint)
    for frame in app.dataframe:
        column = next((name for name in ("feature", "open") if name in frame.value), None)
        if column and page in ("features", "library"):
            assert all("sae=" in link for link in frame.value[column])
    if page == "features":
        assert all(wanted in link for link in app.dataframe[0].value["feature"])


def test_another_sae_in_the_url_begins_with_nothing_of_the_one_before(checkpoint):
    app = run("steer", sae=str(checkpoint), edits="3,clamp,4", prompt="The cat", tokens="2")
    press(app, "Generate")
    assert [header.value for header in app.subheader] == ["Default", "Steered"]
    for number in range(50):  # the order in which keys are forgotten is by their hashes: one in fifty would stay unseen
        app.session_state[f"made-{number}"] = number
    app.query_params["sae"] = EMBEDDED
    app.run()
    assert not [key for key in app.session_state if key.startswith("made-")]
    assert not app.subheader
    assert "9,216 features" in app.caption[0].value


def test_going_back_in_the_browser_shows_what_the_url_says():
    app = run("feature", feature="11")
    app.number_input[0].set_value(12).run()
    assert at(app, "feature") == "12"
    app.query_params["feature"] = "11"  # as the browser does
    app.run()
    assert app.number_input[0].value == 11
    assert at(app, "feature") == "11"
    app = run("steer", edits="11,clamp,20", prompt="A city")
    app.query_params["edits"] = "12,ablate,0"
    app.run()
    assert app.session_state["steer_rows"]["feature"].tolist() == [12]
    assert at(app, "edits") == "12,ablate,0"


def test_a_number_in_the_url_that_no_widget_takes_is_a_sentence():
    assert "tokens 'many' in the URL is no number" in run("steer", tokens="many").error[0].value
    assert "seed -1 in the URL is not between" in run("steer", seed="-1").error[0].value


def test_a_mistake_in_a_search_is_shown_as_a_sentence():
    app = run("features", q="tokn:/a/")
    assert "did you mean token" in app.error[0].value


def test_a_feature_opens_by_its_url_and_tries_a_text():
    number = run("features", q="token:/^ ?Paris$/").dataframe[0].value["feature"][0].rpartition("=")[2]
    app = run("feature", feature=number, text="The Eiffel Tower is in Paris.")
    assert app.number_input[0].value == int(number)
    shown = sheet(app)
    assert "Largest activation here" in shown
    assert "your text" in shown  # marked in the histogram
    order = [
        shown.index(title)
        for title in ("What speaks against it", "Where it fires", "Trial of the label", "Activations", "Neighbours")
    ]
    assert order == sorted(order)
    assert "<th>promotes</th>" in shown
    assert urlencode({"sae": str(ROOT / EMBEDDED), "feature": number}).replace("&", "&amp;") in shown  # its own link


def test_a_figure_is_measured_again_from_its_page(checkpoint):
    app = run("feature", sae=str(checkpoint), feature="3")
    assert 'data-again="near"' in sheet(app)
    app.session_state["ran"] = {(str(checkpoint), 3, "near"): again(str(checkpoint), 3, "near")}
    app.run()
    assert '<span class="pill good">agrees</span>' in sheet(app)


def test_what_is_hostile_in_a_label_stays_text():
    app = editing("13")
    app.text_input(key="text-13").set_value("<img src=x onerror=alert(1)>")
    app.text_input(key="tags-13").set_value("<b>")
    next(button for button in app.button if button.label == "Save label").click().run()
    assert not app.exception
    shown = sheet(app)
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    assert "<img" not in shown
    assert "<b>&lt;" not in shown
    next(button for button in app.button if button.label == "Undo the last change").click().run()
    assert "onerror" not in sheet(app)


def test_the_page_of_a_feature_follows_its_label_and_its_index(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    assert "automatic" in sheet(run("feature", sae=str(checkpoint), feature="5")).lower()
    label(str(checkpoint), 5, "a name of another session")
    assert "a name of another session" in sheet(run("feature", sae=str(checkpoint), feature="5"))


def test_a_label_is_saved_from_the_page():
    app = editing("11")
    app.text_input(key="text-11").set_value("a <script>label</script>")
    app.text_input(key="author-11").set_value("test")
    next(button for button in app.button if button.label == "Save label").click().run()
    assert not app.exception
    assert "&lt;script&gt;" in sheet(app)
    assert "<script>" not in sheet(app)
    editing("11").text_input(key="text-11").set_value("").run()


def test_tags_and_a_star_are_saved_from_the_page_and_taken_back():
    app = editing("12")
    app.text_input(key="text-12").set_value("marked")
    app.text_input(key="tags-12").set_value("one, two")
    app.checkbox(key="star-12").check()
    next(button for button in app.button if button.label == "Save label").click().run()
    assert not app.exception
    marks = current_marks(EMBEDDED, 12)
    assert (marks.text, marks.tags, marks.starred) == ("marked", ("one", "two"), True)
    next(button for button in app.button if button.label == "Undo the last change").click().run()
    assert not app.exception
    assert (app.text_input(key="text-12").value, app.text_input(key="tags-12").value) == ("", "")
    assert not app.checkbox(key="star-12").value
    assert not current_marks(EMBEDDED, 12).starred


def test_a_feature_that_does_not_exist_is_a_sentence():
    assert "no feature 99999" in run("feature", feature="99999").error[0].value
    assert "is no number" in run("feature", feature="x").error[0].value


def test_a_neuron_is_laid_beside_its_features(monkeypatch, tmp_path):
    own_home(monkeypatch, tmp_path)
    app = run("neuron", neuron="15.3")
    assert "--neurons 15" in app.caption[1].value.replace("\\", "")
    assert next(button for button in app.button if button.label.startswith("Index "))
    bench = Workbench.open(EMBEDDED)
    bench.build_neuron_index(15, "wiki-en", 8_192)  # in which both signs of it fire
    app = run("neuron", neuron="15.3")
    assert not app.error
    shown = sheet(app)
    order = [
        shown.index(title) for title in ("Where it is positive", "Where it is negative", "Nearest to what it writes")
    ]
    assert order == sorted(order)
    assert "of its largest" in shown  # a feature that fires at a context, by its share
    assert "is no neuron" in run("neuron", neuron="x").error[0].value
    found = bench.neuron(15, 3)
    for sign, page in found.signs.items():
        groups = found.contexts(sign)
        assert sorted(e.position for each in groups for e, _ in each.examples) == sorted(
            e.position for e in page.examples
        )
        for each in groups:
            for example, share in each.examples:
                here = found.untangled.get(example.position, [])
                assert (here[0][:2] if here else (None, 0.0)) == (each.feature, share)
        assert [each.feature is None for each in groups] == sorted(each.feature is None for each in groups)


def test_the_prompt_page_shows_what_layers_would_say_at_a_token():
    app = run("prompt", text="The capital of France is", token="5", lens="True")
    shown = sheet(app)
    layers = re.findall(r'<li[^>]*><span class="layer">after (\d+)</span>', shown)
    assert layers[0] == "30"
    assert "16" in layers  # what the SAE reads: the residual stream after block 15
    assert layers == sorted(layers, key=int, reverse=True)
    assert 'class="says"' in shown
    assert "What would be said next" not in sheet(run("prompt", text="The cat"))


def test_the_prompt_page_shows_the_spectrum_of_the_urls_text():
    app = run("prompt", text="The cat <script>sat</script>.", token="3")
    assert app.text_area[0].value == "The cat <script>sat</script>."
    assert "left out as sinks" in app.caption[1].value
    shown = sheet(app)
    assert "<h2>Spectrum</h2>" in shown
    assert "<script>" not in shown
    assert re.search(r'data-set="token=3" aria-pressed="true"', shown)
    assert "not explained" in shown
    assert at(app, "token") == "3"
    links = re.findall(r'href="([^"]*)"', shown)
    assert all("feature?sae=" in link and "text=" in link for link in links)
    assert "none of this text" in run("prompt", text="The cat", token="99").error[0].value


def test_steering_shows_both_texts_side_by_side():
    app = run("steer", prompt="The best city is", edits="11,clamp,20", tokens="8")
    press(app, "Generate")
    assert [header.value for header in app.subheader] == ["Default", "Steered"]
    assert at(app, "edits") == "11,clamp,20"


def test_a_feature_is_found_by_its_number_and_held_by_a_slider_in_units_of_its_largest(checkpoint):
    app = run("steer", sae=str(checkpoint))
    assert not app.slider
    app.text_input(key="steer-find").set_value("3").run()
    app.button(key="add-3").click().run()
    largest = float(at(app, "edits").split(",")[2])
    assert app.slider[0].value == pytest.approx(1.0, abs=0.01)
    app.slider[0].set_value(2.0).run()
    assert not app.exception
    assert float(at(app, "edits").split(",")[2]) == pytest.approx(2 * largest, rel=0.01)
    press(app, "Remove")
    assert not app.slider


def test_edits_with_places_and_thresholds_are_in_the_url():
    edits = "11,clamp,20,token:/a%2Cb/,1.5;12,orthogonal,0"
    app = run("steer", edits=edits, prompt="A city")
    assert at(app, "edits") == edits
    rows = app.session_state["steer_rows"]
    assert rows["where"].tolist() == ["token:/a,b/", "all"]
    assert rows["above"][0] == 1.5


def test_a_sweep_shows_its_verdict_its_curve_and_its_record():
    app = run("steer", edits="8501,clamp,20")
    app.multiselect[0].set_value([1.0])
    app.text_area[1].set_value("The best city is\nI think that")
    next(n for n in app.number_input if n.label == "Tokens a text").set_value(3)
    next(b for b in app.button if b.label == "Sweep").click().run()
    assert not app.exception
    assert app.info[0].value.startswith("feature 8501")
    table = app.dataframe[-1].value
    assert set(table["series"]) == {"baseline", "feature", "random features", "noise", "sign flipped", "prompt only"}


def test_a_bad_edit_in_the_url_is_a_sentence():
    assert "cannot be read" in run("steer", edits="11,clamp").error[0].value
    assert "no edit 'push'" in run("steer", edits="11,push,2").error[0].value


def test_a_clone_run_by_streamlit_itself_has_the_same_theme():
    own = tomllib.loads((ROOT / "interp" / "ui" / "theme.toml").read_text())
    clone = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert clone["theme"] == own["theme"]
