"""Models of pictures and of sound, tiny ones of random weights: hook points, places, corpora of files, and the whole way."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from interp.activations import harvest, stream
from interp.corpus import open_corpus, tokenize
from interp.corpus.blocks import FILE
from interp.models import Edit, open_model
from interp.models.transcribing import Heard, listen
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench
from tests.families import AUDIO, VISION, WIDTH, clips, pictures, save, save_media, sentences

torch.set_num_threads(1)
ALL = [*VISION, *AUDIO]
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folders of pictures and of clips, by what they hold."""
    root = tmp_path_factory.mktemp("files")
    return {"pictures": pictures(root / "pictures"), "sound": clips(root / "clips")}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A model of each family, made and opened when it is first asked for."""
    root, made = tmp_path_factory.mktemp("media"), {}

    def model(family):
        if family not in made:
            made[family] = open_model(str(save_media(family, root / family)), dtype="float32")
        return made[family]

    return model


def two(model, files):
    """Two items of the model's kind, as it takes them."""
    some = [doc.text for doc in open_corpus(files[model.media.kind]).documents()][:2]
    items = [model.prompt(path) for path in some]
    return torch.tensor(items), torch.stack([item.given for item in items])


def theirs(model, given):
    """The hidden states that the framework's own option gives."""
    module = model.module.get_encoder() if hasattr(model.module, "proj_out") else model.module
    with torch.inference_mode():
        return module(given, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("family", ALL)
def test_a_hook_point_is_the_frameworks_own_activation_and_edits_reach_the_output(opened, files, family):
    model = opened(family)
    places_BT, given = two(model, files)
    x_BTD = model.run(places_BT, [HOOK], given=given).activations[HOOK]
    assert x_BTD.shape == (*places_BT.shape, WIDTH)
    assert torch.allclose(x_BTD, theirs(model, given)[2], atol=1e-5)
    plain = model.run(places_BT, given=given).logits
    same = model.run(places_BT, edits=[Edit(HOOK, lambda x, site: x.clone())], given=given).logits
    assert torch.equal(same, plain)
    gone = model.run(places_BT, edits=[Edit(HOOK, lambda x, site: torch.zeros_like(x))], given=given).logits
    assert float((gone - plain).abs().max()) > 1e-3


def test_places_are_patches_in_rows_after_cls_and_registers(opened, files):
    model = opened("dinov2_with_registers")
    places_BT, given = two(model, files)
    assert places_BT[0].tolist() == [0, 0, 0, *range(1, 17)]
    assert model.vocabulary[1:6] == ["r0c0", "r0c1", "r0c2", "r0c3", "r1c0"]
    # What changes one corner's pixels changes, before any attention, that patch alone.
    hook = "embeddings"
    moved = given.clone()
    moved[:, :, :7, 7:14] += 1
    before, after = (model.run(places_BT, [hook], given=x).activations[hook] for x in (given, moved))
    changed = (before != after).any(-1)[0].nonzero().squeeze(1).tolist()
    assert [model.vocabulary[places_BT[0, at]] for at in changed] == ["r0c1"]


def test_frames_are_called_by_their_time_and_those_of_filled_up_silence_are_masked(opened, files):
    model = opened("whisper")
    path = str(files["sound"] / "0.wav")  # 0.8 s at 44,100 samples a second, two channels; clips of this model are 2 s
    places = model.prompt(path)
    assert places == [*range(1, 41), *[0] * 60]
    assert (model.vocabulary[1], model.vocabulary[40]) == ("0.00s", "0.78s")
    blocks = tokenize(open_corpus(files["sound"]), model, 200)
    assert blocks.block == 100
    assert not bool(blocks.real_NT()[blocks.tokens_NT == 0].any())


def test_sound_at_another_rate_is_brought_to_the_models(tmp_path):
    import soundfile

    from interp.models.families.audio import read_sound

    tones = {}
    for rate in (16_000, 44_100):
        soundfile.write(tmp_path / f"{rate}.wav", np.sin(2 * np.pi * 440 * np.arange(rate) / rate) * 0.5, rate)
        tones[rate] = read_sound(tmp_path / f"{rate}.wav")
    assert len(tones[44_100]) == 16_000
    assert np.corrcoef(tones[16_000][500:-500], tones[44_100][500:-500])[0, 1] > 0.999


@pytest.mark.parametrize("family", [*(pytest.param(f, marks=pytest.mark.slow) for f in ALL if f not in ("vit", "whisper")),
                                    "vit", "whisper"])  # fmt: skip
def test_the_whole_way(opened, files, family, tmp_path):
    """A folder of files: stream, train, index, a feature's page, searches (also by a file), and one feature ablated."""
    model = opened(family)
    folder = files[model.media.kind]
    source = stream(model, open_corpus(folder), [HOOK], 100_000 if family == "vit" else 2_000)
    train_checkpoint(source, HOOK, tmp_path / "sae", d_sae=64, k=8, batch=128, config=TrainConfig(lr=3e-3))
    wb = Workbench.open(tmp_path / "sae", labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(open_corpus(folder), 100_000 if family == "vit" else 2_000, beside=True)
    file = str(next(doc.text for doc in open_corpus(folder).documents()))
    spectrum = wb.spectrum(file)
    fires = int(spectrum.features[spectrum.values.argmax()])
    page = wb.feature(fires)
    assert page.examples
    assert page.examples[0].title in {doc.title for doc in open_corpus(folder).documents()}
    for query in (
        f'fires:"{file}"',
        f"like:{fires}",
        "density:1e-5..1",
        "token:/c1$/",
        *["topic:red"] * (family == "vit"),
    ):
        wb.search(query)
    assert fires in [hit.feature for hit in wb.search(f'fires:"{file}"', limit=64)]
    ablation = wb.ablate(file, fires)
    assert ablation.unit == "change relative to the vector"
    assert ablation.largest > 0
    assert json.loads(ablation.to_json())["feature"] == fires
    with pytest.raises(InterpError, match=f"reads {model.media.kind}, so it continues nothing"):
        wb.steer(file, [])


@pytest.mark.parametrize("kind", ["all", "examples"])
def test_what_is_published_of_pictures_does_not_say_where_they_lie(opened, files, tmp_path, kind):
    corpus = open_corpus(files["pictures"])
    train_checkpoint(stream(opened("vit"), corpus, [HOOK], 2_000), HOOK, tmp_path / "sae", d_sae=64, k=8, batch=128)
    wb = Workbench.open(tmp_path / "sae", labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(corpus, 2_000, beside=True, keep=kind)
    index = wb.index
    assert (FILE in index.documents_table.column_names) == (kind == "all")  # whose own index it is finds them again
    done = wb.publish(tmp_path / "out")
    tables = {path.name: pq.read_table(path) for path in done.folder.rglob("*.parquet")}
    assert tables["documents.parquet"]["title"].to_pylist() == index.documents_table["title"].to_pylist()
    said = [repr(table.to_pylist()) + repr(table.schema.metadata) for table in tables.values()]
    assert not any(str(files["pictures"]) in each for each in said)


def test_whisper_writes_down_what_it_hears_and_edits_of_its_encoder_reach_the_words(opened, files):
    model = opened("whisper")
    clip = model.prompt(str(files["sound"] / "1.wav"))
    (plain,) = model.transcribe([clip], most=6)
    seen = []

    def away(x_BTD, site):
        seen.append(tuple(x_BTD.shape[:2]) == tuple(site.tokens_BT.shape))
        return -3 * x_BTD

    assert model.transcribe([clip], [Edit(HOOK, lambda x, site: x.clone())], most=6) == [plain]
    assert model.transcribe([clip], [Edit(HOOK, away)], most=6) != [plain]
    assert seen == [True]  # once: the encoder runs once for a clip, however much is written
    with pytest.raises(InterpError, match="writes down nothing"):
        opened("hubert").transcribe([opened("hubert").prompt(str(files["sound"] / "1.wav"))])


def test_how_sure_whisper_is_of_its_words_and_of_speech(opened, files, monkeypatch):
    model = opened("whisper")
    heard_of = [model.prompt(str(files["sound"] / f"{n}.wav")) for n in (0, 1)]
    config = model.module.generation_config
    monkeypatch.setattr(config, "no_timestamps_token_id", 8, raising=False)
    both = listen(model, heard_of, most=5)
    assert [heard.text for heard in both] == model.transcribe(heard_of, most=5)
    alone = listen(model, heard_of[1:], most=5)[0]
    assert (alone.no_speech, alone.logprob) == pytest.approx((both[1].no_speech, both[1].logprob), abs=1e-4)
    # What the framework's own pass gives, token by token.
    given = heard_of[1].given[None]
    with torch.inference_mode():
        new = model.module.generate(given, max_new_tokens=5, do_sample=False)[0].tolist()
        own = [config.decoder_start_token_id, 8, *new]
        logits = model.module(given, decoder_input_ids=torch.tensor([own])).logits[0].log_softmax(-1)
    assert alone.no_speech == pytest.approx(float(logits[0, 7].exp()), rel=1e-4)
    likely = [float(logits[at - 1, own[at]]) for at in range(2, len(own))]
    assert alone.logprob == pytest.approx(np.mean(likely), rel=1e-4)
    loud = Edit(HOOK, lambda x_BTD, site: -3 * x_BTD)
    assert listen(model, heard_of[1:], [loud], most=5)[0].no_speech != pytest.approx(alone.no_speech, rel=1e-4)
    with pytest.raises(InterpError, match="writes down nothing"):
        listen(opened("hubert"), [opened("hubert").prompt(str(files["sound"] / "1.wav"))])


@pytest.mark.parametrize(
    ("no_speech", "logprob", "speech"),
    [(0.7, -1.1, False), (0.7, -0.9, True), (0.5, -1.1, True), (float("nan"), -9, True)],
)
def test_words_are_dropped_only_where_both_limits_are_passed(no_speech, logprob, speech):
    assert Heard(text="you", no_speech=no_speech, logprob=logprob).speech is speech


def test_a_harvest_of_pictures_is_what_the_stream_gives(opened, files, tmp_path):
    model, corpus = opened("vit"), open_corpus(files["pictures"])
    store = harvest(model, corpus, [HOOK], 300, tmp_path / "acts")
    source = stream(model, corpus, [HOOK], 300)
    for (first, count, read), (first_, count_, read_) in zip(store.pieces(HOOK), source.pieces(HOOK), strict=True):
        assert (first, count) == (first_, count_)
        assert torch.equal(read(), read_())
    assert store.blocks.files(range(1)) == source.blocks.files(range(1))
    harvest(model, corpus, [HOOK], 300, tmp_path / "acts")  # whole already: nothing is run again


def test_what_cannot_be_read_is_told_and_left_out(opened, files, tmp_path, capsys):
    model = opened("vit")
    pictures(tmp_path / "p", 3)
    (tmp_path / "p" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    blocks = tokenize(open_corpus(tmp_path / "p"), model, 10_000)
    assert len(blocks.tokens_NT) == len(blocks.documents) == 3
    assert "broken.png cannot be read as a picture" in capsys.readouterr().err


def test_kinds_that_do_not_fit_are_refused(opened, files, tmp_path):
    text = tmp_path / "docs.txt"
    text.write_text("\n\n".join(sentences(3)), encoding="utf-8")
    reader = open_model(str(save("gpt2", tmp_path / "gpt2")), dtype="float32")
    with pytest.raises(InterpError, match="is pictures, and this model reads text"):
        tokenize(open_corpus(files["pictures"]), reader, 100)
    with pytest.raises(InterpError, match="is text, and this model reads pictures"):
        tokenize(open_corpus(text), opened("vit"), 100)
    with pytest.raises(InterpError, match="is sound, and this model reads pictures"):
        tokenize(open_corpus(files["sound"]), opened("vit"), 100)
    (tmp_path / "film.mp4").write_bytes(b"0")
    with pytest.raises(InterpError, match="is a video, which nothing here reads"):
        open_corpus(tmp_path / "film.mp4")
    with pytest.raises(InterpError, match=r"there is no file .*gone\.png"):
        opened("vit").prompt(str(tmp_path / "gone.png"))
    with pytest.raises(InterpError, match="has no vocabulary"):
        opened("vit").unembedding()


def test_tensors_that_no_file_holds_are_told_and_are_no_part_of_the_fingerprint(tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = save_media("vit", tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    assert [name for name in weights if name.startswith("pooler")]
    rest = {name: x for name, x in weights.items() if not name.startswith("pooler")}
    save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})
    capsys.readouterr()
    names = {open_model(str(folder), dtype="float32").fingerprint() for _ in range(2)}
    assert "its files hold no pooler.dense.bias, pooler.dense.weight, which are random" in capsys.readouterr().err
    assert len(names) == 1


def test_code_that_comes_with_weights_is_not_run(tmp_path):
    config = {"model_type": "new", "architectures": ["New"], "auto_map": {"AutoConfig": "new.NewConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "new.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    with pytest.raises(InterpError, match="needs code that comes with its weights, which is not run here"):
        open_model(str(tmp_path))


def test_a_model_whose_input_is_not_described_is_refused(tmp_path):
    folder = save_media("vit", tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InterpError, match=r"vit has no preprocessor_config\.json, so how its input is prepared"):
        open_model(str(folder))
