"""The recipe on Whisper's false words: its parts that need no model, and the whole of it on sounds made here and a tiny random Whisper."""

import hashlib
import importlib
import io
import json
import sys

import numpy as np
import pytest
import soundfile
import torch

from interp.corpus import archives
from interp.corpus.pins import Archive
from interp.models import open_model
from interp.models.transcribing import Heard, listen
from interp.types import InterpError
from tests.conftest import ROOT
from tests.families import save_media
from tests.test_archives import deb

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def modules():
    """(recipe, its clips, its figures), imported from where they lie."""
    sys.path.insert(0, str(ROOT / "recipes"))
    try:
        yield tuple(importlib.import_module(name) for name in ("whisper", "whisper_clips", "whisper_figures"))
    finally:
        sys.path.remove(str(ROOT / "recipes"))
        for name in ("whisper", "whisper_clips", "whisper_figures", "smollm2"):
            sys.modules.pop(name, None)


def heard(text, no_speech=0.0, logprob=0.0):
    return Heard(text=text, no_speech=no_speech, logprob=logprob)


@pytest.mark.parametrize(
    ("right", "written", "wrong"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "", 3), ("", "a b", 2), ("a b c d", "b c d e", 2)],
)
def test_word_errors_are_the_fewest_changes(modules, right, written, wrong):
    assert modules[2].errors(right.split(), written.split()) == wrong


def test_words_are_spelled_alike_and_kept_by_whispers_own_rule(modules):
    figures = modules[2]
    assert figures.spelled("Ten of clubs, isn't it?") == figures.spelled("10 of Clubs is not it")
    assert figures.words(heard("You.", no_speech=0.9, logprob=-0.5)) == ["you"]
    assert figures.words(heard("You.", no_speech=0.9, logprob=-1.5)) == []
    assert figures.words(heard("You.", no_speech=0.1, logprob=-1.5)) == ["you"]
    assert figures.words(heard(" ... ")) == []


def test_features_are_ranked_by_the_difference_of_means(modules):
    mean_CF = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0], [0.0, 5.0, 2.0]])
    difference_F = modules[0].ranked(mean_CF, np.array([True, True, False]))
    assert difference_F.tolist() == [2.0, -5.0, 0.0]
    assert modules[0].first(difference_F, 2) == [0, 2]
    assert modules[0].first(-difference_F, 1) == [1]


def test_random_features_are_as_dense_and_others(modules):
    density_F = np.repeat([0.0, 0.01, 0.1, 0.5], 25)
    chosen = [30, 55, 56, 80]
    drawn = modules[0].matched(density_F, chosen, range(26, 32), seed=1)
    assert np.array_equal(density_F[drawn], density_F[chosen])
    assert len({*drawn, *chosen, *range(26, 32)}) == len(drawn) + 9
    assert drawn == modules[0].matched(density_F, chosen, range(26, 32), seed=1)
    assert drawn != modules[0].matched(density_F, chosen, range(26, 32), seed=2)


def test_the_same_file_is_always_in_the_same_part(modules):
    parts = [modules[1].part_of(f"source/{n}") for n in range(400)]
    assert parts == [modules[1].part_of(f"source/{n}") for n in range(400)]
    assert 150 < parts.count("learn") < 250


def test_sounds_are_packed_whole_and_in_order(modules):
    clips = modules[1]
    sounds = [
        clips.Sound(name=str(n), source="x", speech=True, part="learn", samples=np.full(12 * clips.RATE, n, np.float32))
        for n in (1, 2, 3)
    ]
    first, second = clips.packed(sounds)
    assert [sorted(set(x.tolist())) for x in (first, second)] == [[0, 1, 2], [0, 3]]
    assert len(first) == 25 * clips.RATE
    with soundfile.SoundFile(io.BytesIO(clips.flac(second))) as file:
        assert (file.samplerate, file.frames) == (16_000, 480_000)


def test_the_colour_of_noise_is_how_its_power_falls(modules):
    power = {}
    for slope in (-1.0, 0.0, 2.0):
        noise = modules[1].coloured(np.random.default_rng(0), 64_000, slope)
        spectrum = np.abs(np.fft.rfft(noise)) ** 2
        power[slope] = spectrum[8_000:16_000].mean() / spectrum[4_000:8_000].mean()
        assert np.abs(noise).max() == pytest.approx(1)
    assert power[-1.0] == pytest.approx(2, rel=0.1)
    assert power[0.0] == pytest.approx(1, rel=0.1)
    assert power[2.0] == pytest.approx(1 / 4, rel=0.1)


def test_figures_are_those_of_a_count_by_hand(modules):
    figures = modules[2]
    rows = [{"file": "q1", "speech": False, "words": "", "source": "noise"}, {"file": "q2", "speech": False, "words": "", "source": "noise"},
            {"file": "s1", "speech": True, "words": "a b c d", "source": "said"}, {"file": "s2", "speech": True, "words": "a b", "source": "said"},
            {"file": "o1", "speech": True, "words": "", "source": "other"}, {"file": "o2", "speech": True, "words": "", "source": "other"}]  # fmt: skip
    plain = {
        "q1": heard("you"),
        "q2": heard("."),
        "s1": heard("a b c d"),
        "s2": heard("a x"),
        "o1": heard("e f"),
        "o2": heard("g"),
    }
    quiet = plain | {"q1": heard("you", no_speech=0.7, logprob=-2.0), "s1": heard("a b"), "o1": heard("e")}
    base = figures.told(rows, plain, plain)
    one = figures.figures(figures.told(rows, quiet, plain), base)
    assert (one["false_speech"]["clips"], one["false_speech"]["of"], one["false_speech"]["change"]) == (0, 2, -0.5)
    assert (one["word_error"]["errors"], one["word_error"]["words"]) == (3, 6)
    assert one["word_error"]["change"] == pytest.approx(2 / 6)
    assert (one["word_change"]["errors"], one["word_change"]["words"]) == (1, 3)
    counts = {"no_speech_with_text": 1, "no_speech_by_token": 0, "speech_lost": 0, "speech_lost_by_token": 0}
    assert figures.otherwise(rows, quiet) == counts
    assert figures.by_source(rows, plain)["said"] == {"clips": 2, "with_words": 2, "words": 6, "errors": 1}


@pytest.fixture
def recipe(modules, monkeypatch, tmp_path):
    """The recipe over two small packages, a few sentences that beeps stand for, and a tiny random Whisper whose clips are two seconds."""
    made, clips, _ = modules
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(clips, "LONGEST", 2.0)
    monkeypatch.setattr(clips, "SHORT", 0.5)

    def tones(pitch):
        out = io.BytesIO()
        second = np.arange(12_000) / 16_000
        soundfile.write(out, 0.4 * np.sin(2 * np.pi * pitch * second), 16_000, format="WAV")
        return out.getvalue()

    archives.folder().mkdir(parents=True, exist_ok=True)
    packages = {}
    for name, speech in (("asterisk", True), ("alsa", True), ("oxygen", False)):
        content = deb({f"usr/{name}/Low_{n}.wav": tones(200 + 40 * n + 900 * speech) for n in range(14)})
        archive = Archive(
            kind="debian",
            name=name,
            version="1.0",
            file=f"{name}.deb",
            sha256=hashlib.sha256(content).hexdigest(),
            size=9,
        )
        (archives.folder() / archive.file).write_bytes(content)
        packages[name] = clips.Package(archive=archive, pattern=r".+/(\w+)\.wav", speech=speech)
    monkeypatch.setattr(clips, "PACKAGES", packages)
    monkeypatch.setattr(clips, "spoken", lambda: iter(()))
    monkeypatch.setattr(clips, "NOISES", 9)
    monkeypatch.setattr(made, "WORK", tmp_path / "work")
    monkeypatch.setattr(made, "RESULTS", tmp_path / "results.json")
    for name, value in {
        "D_SAE": 64,
        "K": 8,
        "EPOCHS": 1.0,
        "TOKENS": 5,
        "SIZES": (1, 2, 3, 4),
        "KEPT": 4,
        "BATCH": 128,
        "CHOOSING": 30,
        "POSITIONS": 20_000,
        "SHARDS": 1,
    }.items():
        monkeypatch.setattr(made, name, value)
    model = open_model(str(save_media("whisper", tmp_path / "model")), dtype="float32")
    monkeypatch.setattr(model.module.generation_config, "no_timestamps_token_id", 8, raising=False)
    monkeypatch.setattr(made, "open_model", lambda name: model)
    monkeypatch.setattr(made, "HOOK", "blocks.1.hook_resid_post")
    for kept in (made.opened, made.at_hook):
        kept.cache_clear()
    yield made
    for kept in (made.opened, made.at_hook):
        kept.cache_clear()


def test_the_whole_recipe_goes_on_where_it_stopped(recipe, monkeypatch):
    for stage in ("clips", "harvest", "train", "select"):
        recipe.STAGES[stage]()
    learn, measure = recipe.clips_of("learn"), recipe.clips_of("measure")
    assert {row["source"] for row in measure} == {"asterisk", "alsa", "oxygen", "generated"}
    assert not {row["name"] for row in learn} & {row["name"] for row in measure}
    trained_on = {document.title for document in recipe.corpus().read()}
    assert not trained_on & {row["file"] for row in measure}
    every = {one.name: one for some in recipe.conditions() for one in some}
    some = [every[name] for name in ("nothing", "ablate 4 of no speech", "raise 4 random as much, 1 times")]
    quiet = every["ablate 4 of no speech"].features
    assert every["ablate 2 of no speech"].features == quiet[:2]
    assert not set(quiet) & {f for one in every.values() if "random" in one.name for f in one.features}
    assert every["raise 4 of no speech, 2 times"].raised == tuple(
        2 * x for x in every["raise 4 of no speech, 1 times"].raised
    )
    monkeypatch.setattr(recipe, "conditions", lambda: (some[:1], some[1:]))
    recipe.stage_measure()
    kept = recipe.WORK / "heard" / "nothing.json"
    whole = json.loads(kept.read_text())
    kept.write_text(json.dumps(dict(list(whole.items())[:3])))
    asked, own = [], recipe.hear
    monkeypatch.setattr(recipe, "hear", lambda file, edits: asked.append(file) or own(file, edits))
    recipe.stage_measure()
    assert asked == list(whole)[3:]
    assert json.loads(kept.read_text()) == whole
    recipe.stage_report()
    found = json.loads(recipe.RESULTS.read_text())["conditions"]
    assert set(found) == {one.name for one in some}
    assert found["nothing"]["false_speech"]["of"] == sum(not row["speech"] for row in measure)
    assert found["nothing"]["word_change"]["errors"] == 0


def test_ablation_takes_out_what_the_features_add_and_keeps_the_rest(recipe):
    for stage in ("clips", "harvest", "train"):
        recipe.STAGES[stage]()
    model, sae, card = recipe.opened()
    clip = model.prompt(str(recipe.WORK / recipe.clips_of("measure")[-1]["file"]))
    places_BT, sound = torch.tensor([clip]), torch.stack([clip.given])
    x_TD = model.run(places_BT, [recipe.HOOK], given=sound).activations[recipe.HOOK][0]
    codes_TF = sae.encode(x_TD)
    chosen = codes_TF.mean(0).topk(3).indices.tolist()
    edits = recipe.Condition(name="x", features=tuple(chosen)).edits(sae, card)
    after_TD = model.run(places_BT, [recipe.HOOK], edits, given=sound).activations[recipe.HOOK][0]
    expected_TD = x_TD - codes_TF[:, chosen] @ sae.W_dec[chosen]
    assert torch.allclose(after_TD[1:], expected_TD[1:], atol=1e-4)
    assert torch.equal(after_TD[0], x_TD[0])  # the first frame is no position of the SAE's
    part, whole = (
        recipe.hear(recipe.clips_of("measure")[-1]["file"], edits),
        listen(model, [clip], edits, recipe.TOKENS)[0],
    )
    assert part.text == whole.text
    assert (part.no_speech, part.logprob) == pytest.approx((whole.no_speech, whole.logprob), rel=1e-4)
    raised = recipe.Condition(name="y", features=tuple(chosen), raised=(1.0, 0.0, 2.0)).edits(sae, card)
    after_TD = model.run(places_BT, [recipe.HOOK], raised, given=sound).activations[recipe.HOOK][0]
    assert torch.allclose(
        (after_TD - x_TD)[1:], (sae.W_dec[chosen[0]] + 2 * sae.W_dec[chosen[2]]).expand(99, -1), atol=1e-4
    )


def test_a_synthesiser_that_is_missing_is_named(modules, monkeypatch):
    monkeypatch.setattr(modules[1].shutil, "which", lambda program: None)
    with pytest.raises(InterpError, match="speech is made by espeak-ng, which is not on this machine"):
        next(modules[1].spoken())
