"""The queue of labels: who waits, in which order, what a person decides, and that the keyboard's buttons do it."""

import pytest

from interp.commands.labelling import current_label, label
from interp.commands.queue import decide, label_queue
from interp.types import InterpError
from interp.workbench import Workbench
from interp.workbench.queueing import label_queue as queue_of
from tests.test_ui import at, at_root, run, sheet  # noqa: F401  (the fixture acts by itself)


@pytest.fixture
def book(checkpoint, monkeypatch, tmp_path):
    """A checkpoint with labels of a run and of a person, in a home of its own."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    bench = Workbench.open(checkpoint)
    live = [int(f) for f in (bench.index.features["fires"].to_numpy() > 0).nonzero()[0][:5]]
    run_by = {"author": "autolabel", "method": "auto:mined"}
    label(str(checkpoint), live[0], "first", status="undecided", **run_by)
    label(str(checkpoint), live[1], "second", status="proposed", **run_by)
    label(str(checkpoint), live[2], "third", status="confirmed", **run_by)
    label(str(checkpoint), live[3], "fourth", status="refuted", author="ada")
    return str(checkpoint), live


def test_who_waits_follows_from_what_the_labels_say(book):
    sae, live = book
    fires = Workbench.open(sae).index.features["fires"].to_numpy()
    asked = {
        name: list(label_queue(sae, which=name).features)
        for name in ("undecided", "unseen", "refuted", "unnamed", "all")
    }
    assert set(asked["undecided"]) == {live[0], live[1]}
    assert set(asked["unseen"]) == {live[0], live[1], live[2]}
    assert asked["refuted"] == [live[3]]
    assert set(asked["unnamed"]) == set(asked["all"]) - set(live[:4])
    assert asked["all"] == sorted(asked["all"], key=lambda f: (-int(fires[f]), f))
    assert [fires[f] > 0 for f in asked["all"]] == [True] * int((fires > 0).sum())
    told = {author.name: dict(author.statuses) for author in label_queue(sae).authors}
    assert told == {"autolabel": {"undecided": 1, "proposed": 1, "confirmed": 1}, "ada": {"refuted": 1}}


def test_a_decision_keeps_the_name_and_takes_the_feature_out_of_the_queue(book):
    sae, live = book
    before = label_queue(sae)
    first, second = before.features
    assert (before.after(first), before.after(second)) == (second, first)
    decide(sae, first, "confirmed", author="ada")
    now = current_label(sae, first)
    assert (now.text, now.status, now.author, now.method) == (
        "first",
        "confirmed",
        "ada",
        "auto:mined",
    ) or now.text == "second"
    assert list(label_queue(sae).features) == [second]
    assert first not in label_queue(sae, which="unseen").features  # a person has judged it
    for number, author, said in ((live[4], "ada", "no label"), (second, " ", "say who decides")):
        with pytest.raises(InterpError, match=said):
            decide(sae, number, "refuted", author=author)


def test_an_order_that_needs_evidence_says_so_and_names_that_are_none_are_sentences(book, embedded):
    sae, _ = book
    for given, said in (
        ({"order": "effect"}, "needs the evidence"),
        ({"order": "x"}, "order"),
        ({"which": "x"}, "waiting"),
    ):
        with pytest.raises(InterpError, match=said):
            label_queue(sae, **given)
    strongest = queue_of(embedded, "all", "effect").features
    effect = embedded.evidence.column("effect_kl")
    assert effect[strongest[0]] == max(value for value in effect if value == value)


def test_the_page_accepts_goes_on_and_takes_back(book):
    sae, _ = book
    first, second = label_queue(sae).features
    app = run("labels", sae=sae)
    assert next(b for b in app.button if b.label == "Accept").disabled  # nobody is named
    app = run("labels", sae=sae, author="ada")
    assert "2 features named, and neither confirmed nor refuted" in sheet(app)
    next(b for b in app.button if b.label == "Accept").click().run()
    assert not app.exception
    assert current_label(sae, first).status == "confirmed"
    assert at(app, "feature") == str(second)
    assert "you decided 1 in this session" in sheet(app)
    next(b for b in app.button if b.label == "Undo").click().run()
    assert current_label(sae, first).status != "confirmed"
    assert at(app, "feature") == str(first)
    app.text_input(key=f"name-{first}").set_value("a <b>better</b> name").run()
    assert current_label(sae, first).text == "a <b>better</b> name"
    assert "a &lt;b&gt;better&lt;/b&gt; name" in sheet(app)
    next(b for b in app.button if b.label == "Skip").click().run()
    assert at(app, "feature") == str(second)


def test_an_empty_queue_leads_on(book):
    sae, live = book
    decide(sae, live[3], "undecided", author="ada")
    app = run("labels", sae=sae, which="refuted")
    assert not app.exception
    assert any("Nothing waits here" in each.value for each in app.markdown)
    assert "in the URL is none of" in run("labels", sae=sae, which="x").error[0].value


def test_read_only_pages_show_the_queue_and_the_feature_and_offer_nothing_that_writes(book, monkeypatch):
    sae, live = book
    monkeypatch.setenv("INTERP_READ_ONLY", "1")
    app = run("labels", sae=sae, author="ada")
    assert not app.error
    assert not {"Accept", "Refute", "Undo"} & {button.label for button in app.button}
    assert "neither confirmed nor refuted" in sheet(app)
    app = run("feature", sae=sae, feature=str(live[0]))
    assert not app.error
    assert "data-again" not in sheet(app)
    app.session_state["label-editor"] = True  # as if it had been opened
    assert not any(button.label == "Save label" for button in app.run().button)
