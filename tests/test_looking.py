"""What positions of pictures and sound look like: decoded as people see them, cut out at the right place, and safe to show."""

import base64
import io
import json
import os
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from interp.activations import stream
from interp.commands import asking
from interp.commands.finding import search
from interp.commands.inspecting import inspect_feature, look_at
from interp.commands.items import read_upload
from interp.corpus import open_corpus
from interp.corpus.blocks import FILE
from interp.index.folders import best_of_each
from interp.models import open_model
from interp.models.families import audio, picture
from interp.models.families.audio import RATE, hear, read_sound
from interp.models.families.picture import read_picture
from interp.models.open import open_view
from interp.recipe import train_checkpoint
from interp.render.look import Look, Unseen, looked_html
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench
from interp.workbench.looking import EITHER_SIDE, looks, stretch
from interp.workbench.looking import _values as values_of
from interp.workbench.shelf import shelf
from tests.conftest import ROOT
from tests.families import clips, pictures, save_media

torch.set_num_threads(1)
HOOK = "blocks.1.hook_resid_post"
HOSTILE = '"><img src=x onerror=alert(1)><script>.png'


def made(family, folder, items):
    """The folder of a small SAE of a random model of the family, with its index beside it."""
    model = open_model(str(save_media(family, folder / "model")), dtype="float32")
    source = stream(model, open_corpus(items), [HOOK], 2_000)
    sae = folder / "shelf" / "sae"
    train_checkpoint(source, HOOK, sae, d_sae=64, k=8, batch=128, config=TrainConfig(lr=3e-3))
    wb = Workbench.open(sae, labels=f"sqlite:///{folder}/labels.sqlite")
    wb.build_index(open_corpus(items), 2_000, beside=True)
    return wb


@pytest.fixture(scope="module")
def sees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sees")
    items = pictures(folder / "pictures", 24)
    (items / "red" / "1.png").rename(items / "red" / HOSTILE)
    return made("dinov2_with_registers", folder, items)


@pytest.fixture(scope="module")
def hears(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hears")
    return made("whisper", folder, clips(folder / "clips"))


def firing(wb):
    """A feature with many examples."""
    return int(wb.index.features["fires"].to_numpy().argmax())


def decoded(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(float)


# ---- pictures as people see them ----


def saved(path, mode):
    """A picture whose left half is dark and right half light, in a form that decoders treat in their own way."""
    grey = np.repeat(np.r_[np.full(8, 40), np.full(8, 200)][None], 16, 0).astype(np.uint8)
    if mode == "16 bit":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    elif mode == "palette":
        Image.fromarray(grey).convert("P").save(path)
    elif mode == "transparent":
        opaque = np.where(grey > 100, 0, 255).astype(np.uint8)  # the light half is a hole in darkness
        Image.fromarray(np.dstack([np.full_like(grey, 40)] * 3 + [opaque])).save(path)
    elif mode == "grey with a hole":
        Image.fromarray(grey).save(path, transparency=200)
    elif mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # is to be turned by 90 degrees clockwise
        Image.fromarray(np.rot90(grey).copy()).save(path, exif=exif)
    else:
        Image.fromarray(grey).convert(mode).save(path)


@pytest.mark.parametrize(
    "mode", ["L", "RGB", "1", "16 bit", "palette", "transparent", "grey with a hole", "turned", "LA"]
)
def test_a_picture_is_decoded_as_people_see_it(tmp_path, mode):
    saved(tmp_path / "a.png", mode)
    seen = np.asarray(read_picture(tmp_path / "a.png")).astype(float)
    assert seen.shape == (16, 16, 3)
    left, right = seen[:, :8].mean(), seen[:, 8:].mean()
    light = 255 if mode in ("transparent", "grey with a hole") else 200
    if mode == "1":
        assert left < 80 < 150 < right  # dots
    else:
        assert (round(left), round(right)) == (40, light)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(picture, "PIXELS", 300 * 200)
    assert read_picture(tmp_path / "a.png").size == (300, 200)
    monkeypatch.setattr(picture, "PIXELS", 300 * 200 - 1)
    monkeypatch.setattr(picture, "_rgb", lambda opened: pytest.fail("it was decoded"))
    with pytest.raises(InterpError, match="is a picture of 300 × 200 pixels"):
        read_picture(tmp_path / "a.png")


def test_a_stretch_of_a_clip_is_what_the_whole_clip_has_there(tmp_path):
    draw = np.random.default_rng(0)
    low = np.convolve(draw.standard_normal(44_100 * 2), np.ones(40) / 40, "same").astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([low, 0.5 * low], 1), 44_100, subtype="FLOAT")
    whole, part = read_sound(tmp_path / "a.wav"), hear(tmp_path / "a.wav", 0.5, 0.25)
    assert len(part) == 0.25 * RATE
    there = whole[RATE // 2 : RATE // 2 + len(part)]
    assert np.corrcoef(part[200:-200], there[200:-200])[0, 1] > 0.9999


def test_no_more_of_a_clip_is_decoded_than_the_model_reads(hears, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(audio, "hear", lambda path, first, seconds: asked.append(seconds) or hear(path, first, seconds))
    soundfile.write(tmp_path / "long.wav", np.zeros(RATE * 5, dtype=np.float32), RATE)
    hears.model.prompt(str(tmp_path / "long.wav"))
    assert asked == [2.1]  # clips of this model are 2 s


# ---- where patches and frames lie ----


def test_examples_of_pictures_are_crops_around_the_patch_and_heat_maps_over_the_whole(sees):
    feature = firing(sees)
    page = sees.feature(feature)
    found = looks(sees, feature, page.examples)
    assert found.keys() == {e.position for e in page.examples}
    for example in page.examples:
        look = found[example.position]
        assert (look.of.rows, look.of.columns, len(look.values)) == (4, 4, 16)
        row, column = map(int, re.fullmatch(r"r(\d)c(\d)", example.tokens[example.peak]).groups())
        assert look.peak == 4 * row + column
        assert look.values[look.peak] == pytest.approx(example.value, rel=1e-3)
        # The whole is the model's own view of the file: what it is given, before it is normalised.
        path = sees.index.documents[FILE].iat[int(sees.index.document_at[example.position])]
        given = np.asarray(sees.model.media.read(Path(path)).given).transpose(1, 2, 0)
        seen = np.asarray(open_view(sees.card.model)(Path(path))).astype(float)
        assert np.abs((seen / 255 - 0.5) / 0.5 - given).max() < 0.01
        whole = decoded(look.of.jpeg)
        assert whole.shape == (28, 28, 3)
        assert np.corrcoef(whole.ravel(), seen.ravel())[0, 1] > 0.85  # noise is what JPEGs keep worst
        # The crop is its part: four of four patches here, since five are wanted.
        assert look.of.around == (0, 0, 4, 4)
    drawn = looked_html(found[page.examples[0].position], page.max, "a place")
    assert drawn.count("data:image/jpeg;base64,") == 2


def test_a_crop_keeps_its_size_at_the_edge_and_shows_the_patch(tmp_path, sees, monkeypatch):
    from interp.workbench import looking

    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[8:16, 56:64] = (255, 0, 0)  # of 8 by 8 patches the one in row 1, column 7
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(looking, "_view", lambda model: read_picture)
    of = looking.picture("any", tmp_path / "a.png", (1, 1), 8, 8, 1 * 8 + 7)
    assert of.around == (0, 3, 5, 5)
    crop = decoded(of.crop)
    assert crop.shape == (40, 40, 3)
    assert crop[10:14, 34:38, 0].min() > 150  # the patch: row 1 of the crop, column 4
    assert crop[:, :30].max() < 90


def test_what_stands_for_no_part_of_the_picture_is_drawn_nowhere(sees):
    index = sees.index
    position = sees.feature(firing(sees)).examples[0].position
    first = position // index.block * index.block
    assert index.tokens[first : first + 3].tolist() == [0, 0, 0]  # CLS and two registers
    everywhere = np.arange(first, first + index.block), np.arange(1.0, index.block + 1)
    value_T, _ = values_of(index, position, everywhere)
    assert value_T.tolist() == list(np.arange(4.0, index.block + 1))
    with pytest.raises(InterpError, match="stands for no part"):
        values_of(index, first, everywhere)


def test_examples_of_sound_are_a_stretch_around_the_frame_that_can_be_played(hears):
    feature = firing(hears)
    page = hears.feature(feature)
    found = looks(hears, feature, page.examples)
    assert found
    for example in page.examples:
        of, look = found[example.position].of, found[example.position]
        second = float(example.tokens[example.peak].removesuffix("s"))
        assert of.begins[look.peak] == pytest.approx(second)
        assert look.values[look.peak] == pytest.approx(example.value, rel=1e-3)
        assert of.first <= second <= of.first + of.seconds
        assert of.seconds <= 2 * EITHER_SIDE + 0.05
        sound, rate = soundfile.read(io.BytesIO(of.wav))
        assert (rate, sound.ndim) == (RATE, 1)
        path = hears.index.documents[FILE].iat[int(hears.index.document_at[example.position])]
        there = read_sound(Path(path))[round(of.first * RATE) :][: len(sound)]
        assert np.corrcoef(sound[50:-50], there[50:-50])[0, 1] > 0.999
        assert len(of.wav) < 30_000
        assert len(of.begins) == len(look.values)
    assert "<audio controls" in looked_html(found[page.examples[0].position], page.max, "a place")


def test_a_long_clip_is_drawn_whole_and_not_carried_in_the_page(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(RATE * 20) / 9).astype(np.float32) * 0.1, RATE)
    begins = [round(0.02 * at, 2) for at in range(1500)]
    of, frames = stretch(tmp_path / "a.wav", begins, None)
    assert (of.wav, of.first, round(of.seconds)) == (b"", 0.0, 20)
    assert frames == range(1000)
    assert max(high for _, high in of.outline) == pytest.approx(1, abs=0.02)  # a quiet one is seen too
    assert "<audio" not in looked_html(Look(of=of, values=[0.0] * 1000), 1.0, "a place")


# ---- what is not here ----


def test_a_picture_that_is_gone_or_another_is_not_shown_and_the_page_says_so(sees, tmp_path, monkeypatch):
    feature = firing(sees)
    page = sees.feature(feature)
    rows = dict.fromkeys(int(sees.index.document_at[e.position]) for e in page.examples)
    first, second, third, fourth = list(rows)[:4]
    table = sees.index.documents.copy()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (40, 40)).save(secret)
    os.mkfifo(tmp_path / "pipe.png")  # which nobody writes to: reading it would wait for ever
    for row, path in ((first, tmp_path / "gone.png"), (second, secret), (third, tmp_path / "pipe.png"), (fourth, "\0")):
        table.loc[row, FILE] = str(path)
    monkeypatch.setitem(sees.index.__dict__, "documents", table)
    found = looks(sees, feature, page.examples)
    by_row = {int(sees.index.document_at[e.position]): found[e.position] for e in page.examples}
    for row in (first, third, fourth):
        assert "is not on this machine any more where it was" in by_row[row].why
    assert "is another file than the one that was indexed" in by_row[second].why
    assert sum(isinstance(look, Look) for look in found.values()) == len(found) - sum(
        int(sees.index.document_at[e.position]) in (first, second, third, fourth) for e in page.examples
    )
    monkeypatch.setitem(sees.index.__dict__, "documents", table.drop(columns=[FILE]))
    assert all("which does not say where it lies" in look.why for look in looks(sees, feature, page.examples).values())


def test_a_model_that_is_not_here_takes_the_pictures_but_not_the_page(sees, monkeypatch):
    from interp.workbench import looking

    def none(model):
        raise InterpError(f"the model {model} is not on this machine.")

    monkeypatch.setattr(looking, "_seen", lambda model, path, stamp: none(model))
    page = sees.feature(firing(sees))
    assert page.examples
    assert "is not on this machine" in page._repr_html_()


def test_a_shared_index_shows_small_copies_where_the_pictures_are_not(sees, tmp_path, monkeypatch):
    from interp.index import FeatureIndex
    from interp.index.cut import cut

    cut(sees.index, tmp_path / "index")
    shared, feature = FeatureIndex.open(tmp_path / "index"), firing(sees)
    assert FILE not in shared.documents.columns
    whole, page = looks(sees, feature, sees.feature(feature).examples), sees.feature(feature)
    monkeypatch.setitem(sees.__dict__, "index", shared)
    found = looks(sees, feature, page.examples)
    assert found.keys() == whole.keys()
    for position, look in found.items():
        assert look.of.copy
        assert (look.values, look.peak) == (whole[position].values, whole[position].peak)  # of the whole picture
    assert "patches of " in shared.describe(feature)
    cut(sees.index, tmp_path / "bare", without_text=True)
    assert not FeatureIndex.open(tmp_path / "bare").pictures


def test_an_index_of_text_has_no_looks(checkpoint):
    wb = Workbench.open(checkpoint)
    assert wb.feature(0)._looks == {}
    assert looks(wb, 0, wb.feature(0).examples) == {}


# ---- pages ----


class Tags(HTMLParser):
    """The elements of a page, and the addresses that they load."""

    def __init__(self, html):
        super().__init__()
        self.names, self.loads = set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag in ("image", "img", "audio"):
            self.loads |= {value.partition(",")[0] for name, value in attrs if name in ("src", "href")}


def test_notebooks_and_exported_pages_hold_the_pictures_and_hostile_names_stay_text(sees, tmp_path):
    table = sees.index.documents
    row = int(np.flatnonzero(table["title"].str.contains("onerror").to_numpy())[0])
    own = np.flatnonzero(sees.index.document_at == row)
    features = {int(f) for f in range(64) if len(np.intersect1d(sees.index.fired(f)[0], own))}
    feature = next(f for f in sorted(features) if any("onerror" in e.title for e in sees.feature(f).examples[:10]))
    shown = sees.feature(feature)._repr_html_()
    sees.export("html", tmp_path / "out", [feature])
    page = (tmp_path / "out" / f"feature-{feature}.html").read_text(encoding="utf-8")
    for html in (shown, page):
        found = Tags(html)
        assert found.names.isdisjoint({"script", "img"})
        assert found.loads == {"data:image/jpeg;base64"}
        assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "default-src &#x27;none&#x27;" in page
    assert "img-src data:; media-src data:" in page


def test_exported_pages_of_sound_play_it(hears, tmp_path):
    feature = firing(hears)
    hears.export("html", tmp_path / "out", [feature])
    page = (tmp_path / "out" / f"feature-{feature}.html").read_text(encoding="utf-8")
    assert Tags(page).loads == {"data:audio/wav;base64"}
    assert "".join(page.split("data:audio/wav;base64,")[1:2]).startswith(base64.b64encode(b"RIFF").decode()[:4])


def run(page, wb, **query):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=180)
    app.switch_page(f"interp/ui/pages/{page}.py")
    for key, value in {"sae": str(wb.folder), **query}.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def sheets(app):
    given = [json.loads(each.proto.json) for each in app.get("bidi_component") if each.proto.json]
    return "".join(each.get("html", "") for each in given)


@pytest.fixture
def given(sees, hears, monkeypatch):
    """Pages are given the folders of both SAEs, and nothing else."""
    monkeypatch.setenv("INTERP_FOLDERS", os.pathsep.join(str(wb.folder.parent) for wb in (sees, hears)))


def test_the_feature_page_shows_crops_and_waveforms(sees, hears, given):
    html = sheets(run("feature", sees, feature=str(firing(sees))))
    assert html.count('class="crop"') == html.count('class="whole-picture"') > 5
    assert "patches" in html
    assert "steer it" not in html
    Tags(html)
    html = sheets(run("feature", hears, feature=str(firing(hears))))
    assert html.count("<audio controls") == html.count('class="wave"') > 2
    Tags(html)


def test_json_of_a_feature_has_places_and_values_and_no_pictures(sees):
    of = inspect_feature(str(sees.folder), firing(sees))
    assert look_at(str(sees.folder), of)
    assert "_looks" not in of.json
    assert len(of.json) < 200_000
    assert not any(isinstance(look, Unseen) for look in look_at(str(sees.folder), of).values())


# ---- a picture in the place of a sentence ----


def first_file(wb):
    return str(wb.index.documents[FILE].iat[0])


def test_a_spectrum_of_a_picture_or_clip_can_be_seen_feature_by_feature(sees, hears):
    for wb, count in ((sees, 16), (hears, None)):
        spectrum = wb.spectrum(first_file(wb))
        feature = spectrum.strongest(1)[0]
        look = spectrum.look(feature)
        assert max(look.values) == pytest.approx(spectrum.matrix([feature]).max())
        assert look.values[look.peak] == max(look.values)
        assert len(look.values) == (count or len(look.of.begins))
        assert Tags(spectrum._repr_html_()).names.isdisjoint({"script", "img"})
    assert sees.spectrum(first_file(sees)).left_out == 0  # CLS and registers are no patches that are left out


def test_an_upload_is_read_without_its_name_and_is_not_kept(sees, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = Path(first_file(sees)).read_bytes()
    read = read_upload(str(sees.folder), io.BytesIO(content), len(content), "../../etc/passwd")
    assert read.values.tolist() == sees.spectrum(first_file(sees)).values.tolist()
    with pytest.raises(InterpError, match=r"^<b>cat\.png cannot be read as a picture"):
        read_upload(str(sees.folder), io.BytesIO(b"no picture"), 10, "<b>cat.png")
    with pytest.raises(InterpError, match=r"^big\.png has 26 MiB, and 25 MiB can be uploaded"):
        read_upload(str(sees.folder), io.BytesIO(content), 26 * 2**20, "big.png")
    assert not list(tmp_path.iterdir())


def test_pages_read_pictures_only_from_the_folders_that_they_were_given(sees, given, tmp_path):
    outside = first_file(sees)  # the pictures lie beside the shelf, not in it
    there = sees.folder.parent / "given.png"
    there.write_bytes(Path(outside).read_bytes())
    refused = "is not in the folders that these pages were given"
    for page, query in (
        ("prompt", {"text": outside}),
        ("feature", {"text": outside, "feature": "0"}),
        ("start", {"text": outside}),
        ("start", {"q": f'fires:"{outside}"'}),
        ("features", {"q": f'fires:"{outside}"'}),
        ("prompt", {"text": str(tmp_path / "nothing.png")}),
    ):
        app = run(page, sees, **query)
        assert any(refused in each.value.replace("\\", "") for each in app.error), (page, query)
    for query in ("given.png", str(there)):
        html = sheets(run("prompt", sees, text=query))
        assert html.count('class="whole-picture"') > 3
        Tags(html)
    assert "Your picture" in sheets(run("feature", sees, feature="0", text="given.png"))
    assert not run("features", sees, q='fires:"given.png"').error
    assert sees.spectrum(outside).values.size  # a script and the command line read any


def test_the_first_page_shows_pictures_and_takes_one(sees, given):
    html = sheets(run("start", sees))
    assert 'class="whole-picture"' in html
    assert "give it a picture" in html
    assert "Eiffel" not in html
    numbers = re.findall(r'class="number">(\d+)<', html)
    assert len(numbers) == len(set(numbers)) > 1  # no feature twice
    assert 'class="crop"' in sheets(run("start", sees, q="dead:no"))


def test_the_prompt_page_asks_for_what_the_model_reads(hears, given):
    assert "No clip" in run("prompt", hears).markdown[0].value


def test_the_label_queue_shows_crops(sees, given):
    assert 'class="crop"' in sheets(run("labels", sees, which="all"))


def test_two_features_side_by_side_show_their_crops_and_a_feature_of_pictures_has_no_texts_to_edit(sees, given):
    first, second = sees.index.features["fires"].to_numpy().argsort()[-2:]
    html = sheets(run("compare", sees, mode="features", a=str(first), b=str(second)))
    assert html.count('class="crop"') == html.count('class="whole-picture"') > 5
    assert "copy text" not in html
    html = sheets(run("feature", sees, feature=str(first)))
    assert 'data-again="firing"' in html
    assert 'data-again="edits"' not in html


def test_the_shelf_of_pictures_has_features_that_prefer_a_folder_and_counts_them_on_other_pictures(sees):
    index = sees.index
    liked = index.preferences
    score_F = best_of_each(liked, index.d_sae)
    folders = [title.rpartition("/")[0] for title in index.documents["title"]]
    best = [int(f) for f in np.flatnonzero(score_F)]
    assert 0 < len(best) <= len(set(folders))
    for feature in best:
        said = liked[feature].sentence("pictures")
        shown = list(dict.fromkeys(int(index.document_at[each.position]) for each in index.examples(feature)))[:16]
        of, hits = (int(n) for n in re.match(r"of (\d+) more pictures .*, (\d+) lie", said).groups())
        folder = re.search("‘(.*)’", said).group(1)
        assert (of, hits) == (len(shown[1::2]), sum(folders[each] == folder for each in shown[1::2]))
        assert hits / of > folders.count(folder) / len(folders)
        assert said.endswith(f"of all pictures {folders.count(folder) / len(folders):.0%}")
    assert {each.kind for each in shelf(sees)} >= {"one kind of picture"}


def test_the_table_of_features_names_the_picture_and_the_place(sees):
    (row,) = asking.rows(str(sees.folder), [firing(sees)])
    assert re.fullmatch(r"\w+/\d+.*, r\d+c\d+", row.example), row.example


def test_searches_are_offered_that_pictures_can_be_searched_by(sees, given):
    shown = run("features", sees)
    offered = next(each.value for each in shown.caption if each.value.startswith("For example"))
    for query in re.findall("`(.*?)`", offered):
        search(str(sees.folder), query)  # raises for what cannot be read
    assert "token:" not in offered + shown.text_input[0].placeholder
