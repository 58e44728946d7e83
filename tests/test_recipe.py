"""From a store or a stream to checkpoints: every architecture, sweeps, and the self-test."""

import importlib.util
import json
import shutil
import sys
from types import ModuleType
from typing import get_type_hints

import pytest
import torch

import interp
from interp.activations import ActivationStore, Together, harvest, open_stores, stream
from interp.checkpoint import Card, load
from interp.corpus import open_corpus
from interp.models import open_model
from interp.recipe import selftest, train_checkpoint, train_sweep
from interp.sae import ARCHITECTURES, BatchTopK, Options
from interp.sae.metrics import reconstruction
from interp.sae.options import options_of
from interp.steering import Ablate, Clamp
from interp.training import TrainConfig, steps, train
from interp.types import Hook, InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK, ROOT
from tests.home import own_home

EARLY = "blocks.0.hook_resid_post"
SIZES = {"d_sae": 32, "k": 4}


@pytest.fixture(scope="module")
def two(tiny, text_folder, tmp_path_factory) -> ActivationStore:
    """Two hook points over the same text."""
    return harvest(tiny, open_corpus(text_folder), [EARLY, HOOK], 8_192, tmp_path_factory.mktemp("two"))


def quick(**options):
    return {"epochs": 4, "batch": 256, "config": TrainConfig(lr=5e-3), **options}


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_is_trained_saved_and_opened_by_saelens(two, tmp_path, skip):
    sae = train_checkpoint(two, EARLY, tmp_path, "transcoder", writes=HOOK, **quick(**SIZES, skip=skip))
    x, y = (torch.cat([rows.float() for _, rows in two.in_order(hook)]) for hook in (EARLY, HOOK))
    keep = two.counted(two.batches((EARLY, HOOK), 64))
    assert reconstruction(sae, x[keep], y[keep]).fvu < (0.5 if skip else 0.9)
    again = load(tmp_path)
    assert (again.hook_name, again.hook_name_out, again.d_out) == (EARLY, HOOK, 16)
    assert torch.equal(again.reconstruct(x[:99]), sae.reconstruct(x[:99]))
    from sae_lens import SAE as Theirs

    theirs = Theirs.load_from_disk(str(tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(theirs(x[:99]), sae.reconstruct(x[:99]), atol=1e-4, rtol=1e-4)
    assert theirs.cfg.metadata.hook_name_out == HOOK


def test_the_workbench_reads_and_steers_a_transcoder_and_a_crosscoder_and_says_what_it_cannot_do(
    two, text_folder, tmp_path
):
    train_checkpoint(two, EARLY, tmp_path / "t", "transcoder", writes=HOOK, **quick(**SIZES))
    train_checkpoint(two, f"{EARLY}+{HOOK}", tmp_path / "c", "crosscoder", **quick(**SIZES))
    wb = Workbench.open(tmp_path / "t", labels="sqlite://")
    assert wb.spectrum("The capital of France").strongest(3)
    wb.build_index(open_corpus(text_folder), 4_096, beside=True)
    feature = wb.search("token:/capital/", limit=3)[0].feature
    assert wb.feature(feature).promoted
    assert wb.steer("A cat", [Clamp(feature=feature, strength=99.0)], max_new_tokens=4).edits
    assert wb.evaluate(open_corpus(text_folder), 1_024).fvu < 1
    both = Workbench.open(tmp_path / "c", labels="sqlite://")
    (feature,) = both.spectrum("The capital").strongest(1)
    assert both.largest(["The capital"], 9)[0, feature] > 0
    assert both.encode(["The capital", "A cat"]).matrix.shape[1] == both.sae.d_sae
    assert both.evaluate(open_corpus(text_folder), 1_024).fvu < 1
    with pytest.raises(InterpError, match="cannot be edited while text is generated"):
        both.steer("A cat", [Ablate(feature=feature)])
    with pytest.raises(InterpError, match="an index needs a dictionary that reads one hook point"):
        both.build_index(open_corpus(text_folder), 1_024)


def another_model(tiny_folder, folder):
    """The tiny model with other weights and the same tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(9)
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_folder)).save_pretrained(folder)
    return open_model(str(folder), dtype="float32")


def test_a_crosscoder_reads_two_models_side_by_side(two, tiny_folder, text_folder, tmp_path):
    other = another_model(tiny_folder, tmp_path / "other-llama")
    theirs = harvest(other, open_corpus(text_folder), [HOOK], 8_192, tmp_path / "theirs")
    both = open_stores(f"{two.folder} + {theirs.folder}")
    names = (f"1:{HOOK}", f"2:{HOOK}")
    sae = train_checkpoint(both, "+".join(names), tmp_path / "c", "crosscoder", **quick(**SIZES))
    assert json.loads((tmp_path / "c" / "cfg.json").read_text())["hook_names"] == list(names)
    card = Card.read(tmp_path / "c")
    assert card.model_sha256 == f"{two.recipe['model_sha256']} + {theirs.recipe['model_sha256']}"
    keep = both.counted(both.batches(names, 64))
    assert torch.equal(keep, two.keep(HOOK) & theirs.keep(HOOK))
    x = [torch.cat([rows.float() for _, rows in store.in_order(HOOK)])[keep] for store in (two, theirs)]
    assert not torch.equal(*x)
    ours, beside = next(iter(both.batches(names, 64)))
    for row, its in zip(ours[:8], beside[:8], strict=True):  # a batch's rows are of the same positions
        assert its.tolist() in x[1][(x[0] == row).all(1)].tolist()
    made = load(tmp_path / "c").reconstruct(torch.cat(x, dim=1)).split(16, dim=1)
    for each, wanted in zip(made, x, strict=True):
        assert float((each - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()) < 0.9
    assert torch.equal(sae.W_dec, load(tmp_path / "c").W_dec)
    with pytest.raises(InterpError, match=f"did you mean 2:{HOOK}, 1:{HOOK}"):
        train_checkpoint(both, f"{HOOK}+2:{HOOK}", tmp_path / "d", "crosscoder", **quick(**SIZES))
    with pytest.raises(InterpError, match=f"2:{HOOK} is of one model alone; train on .*theirs"):
        train_checkpoint(both, f"2:{HOOK}", tmp_path / "d", **quick(**SIZES))
    with pytest.raises(InterpError, match="is of one model alone"):
        train_sweep(both, [f"1:{HOOK}"], tmp_path / "s", {"architecture": ["topk"], "d_sae": [32], "k": [4]})


def test_models_are_read_side_by_side_over_the_same_tokens_only(two, tiny, text_folder, tmp_path):
    fewer = harvest(tiny, open_corpus(text_folder), [HOOK], 4_096, tmp_path / "fewer")
    with pytest.raises(InterpError, match="differ in tokens_sha256"):
        open_stores(f"{two.folder}+{fewer.folder}")
    with pytest.raises(InterpError, match="no activations in"):
        open_stores(f"{two.folder}+{tmp_path / 'none'}")


def test_a_crosscoder_reads_and_writes_both_hook_points(two, tmp_path):
    sae = train_checkpoint(two, f"{EARLY} + {HOOK}", tmp_path, "crosscoder", **quick(**SIZES))
    card = Card.read(tmp_path)
    assert card.norm_cutoffs == card.mask.cutoffs == {hook: two.norm_cutoff(hook) for hook in (EARLY, HOOK)}
    far = {EARLY: torch.tensor([1.0, 1.0]), HOOK: torch.tensor([1.0, 2 * card.norm_cutoffs[HOOK]])}
    assert card.mask.counted(far, torch.ones(2, dtype=torch.bool)).tolist() == [True, False]
    again = load(tmp_path)
    assert again.hook_name == f"{EARLY}+{HOOK}"
    assert json.loads((tmp_path / "cfg.json").read_text())["hook_names"] == [EARLY, HOOK]
    assert again.widths == (16, 16)
    keep = two.counted(two.batches((EARLY, HOOK), 64))
    x = torch.cat([torch.cat([rows.float() for _, rows in two.in_order(hook)])[keep] for hook in (EARLY, HOOK)], dim=1)
    halves = sae.reconstruct(x).split(16, dim=1), x.split(16, dim=1)
    for made, wanted in zip(*halves, strict=True):  # neither hook point drowns the other
        assert float((made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()) < 0.9
    assert torch.equal(again.reconstruct(x[:50]), sae.reconstruct(x[:50]))


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("standard", {"l1": 1.0}),
        ("gated", {"l1": 1.0}),
        ("jumprelu", {"l0": 4.0}),
        ("matryoshka", {"k": 4}),
        ("topk", {"k": 4}),
    ],
)
def test_every_architecture_makes_a_checkpoint(store, tmp_path, architecture, options):
    sae = train_checkpoint(store, HOOK, tmp_path, architecture, d_sae=32, **quick(**options))
    card = Card.read(tmp_path)
    assert card.architecture == architecture
    assert card.recipe["architecture"]["name"] == architecture
    assert all(card.recipe["architecture"][key] == value for key, value in options.items())
    x = next(iter(store.in_order(HOOK)))[1].float()
    assert torch.equal(load(tmp_path).reconstruct(x), sae.reconstruct(x))


def test_an_architecture_is_given_by_name_or_as_a_configuration(store, tmp_path):
    named = train_checkpoint(store, HOOK, tmp_path / "a", "batchtopk", **quick(**SIZES))
    given = train_checkpoint(store, Hook(HOOK), tmp_path / "b", BatchTopK(d_in=16, **SIZES), **quick())
    assert all(torch.equal(a, b) for a, b in zip(named.buffers(), given.buffers(), strict=True))
    assert Card.read(tmp_path / "a").recipe == Card.read(tmp_path / "b").recipe
    with pytest.raises(InterpError, match="batchtopk was made for d_in = 8, and the activations have 16"):
        train_checkpoint(store, HOOK, tmp_path / "c", BatchTopK(d_in=8, **SIZES))
    with pytest.raises(InterpError, match="batchtopk is given with all its options; leave out k"):
        train_checkpoint(store, HOOK, tmp_path / "c", BatchTopK(d_in=16, **SIZES), k=3)


def test_hook_points_are_given_joined_or_apart_and_their_widths_come_back(two, tmp_path):
    sae = train_checkpoint(two, [EARLY, Hook(HOOK)], tmp_path / "c", "crosscoder", **quick(**SIZES))
    assert sae.reads == sae.writes == load(tmp_path / "c").reads == (Hook(EARLY, 16), Hook(HOOK, 16))
    assert [(hook.name, hook.width) for hook in Card.read(tmp_path / "c").reads] == [(EARLY, 0), (HOOK, 0)]
    again = train_checkpoint(two, f"{EARLY}+{HOOK}", tmp_path / "c", "crosscoder", **quick(**SIZES))
    assert again.reads == sae.reads  # the same SAE, and so not made anew


def test_old_names_work_and_name_the_new_ones(two, tmp_path):
    with pytest.warns(DeprecationWarning, match="hook_name_out=…\\) is now writes="):
        sae = train_checkpoint(two, EARLY, tmp_path / "t", "transcoder", hook_name_out=HOOK, **quick(**SIZES))
    assert (sae.reads, sae.writes) == ((Hook(EARLY, 16),), (Hook(HOOK, 16),))
    with pytest.warns(DeprecationWarning, match="interp.sweep is now interp.train_sweep"):
        assert interp.sweep is train_sweep
    with pytest.warns(DeprecationWarning, match="interp.recipe.sweep is now"):
        assert interp.recipe.sweep is train_sweep


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_option_of_an_architecture_is_a_typed_keyword(name):
    own = {field.name: field.type for field in options_of(name)}
    sizes = {"d_in", "d_out", "widths"}
    known = get_type_hints(Options)
    assert {key: known.get(key) for key in own.keys() - sizes} == {key: own[key] for key in own.keys() - sizes}


def test_a_sweep_over_hook_points_sizes_and_seeds_equals_each_trained_alone(two, tmp_path):
    grid = {"architecture": ["batchtopk", "topk"], "d_sae": [32], "k": [2, 4], "seed": [0, 1]}
    config = TrainConfig(lr=5e-3)
    rows = train_sweep(two, [EARLY, HOOK], tmp_path, grid, batch=256, config=config)
    assert len(rows) == 16
    for name, hook, kind, k, seed in (
        (f"batchtopk-{EARLY}-d_sae32-k2-seed1", EARLY, "batchtopk", 2, 1),
        (f"topk-{HOOK}-d_sae32-k4-seed0", HOOK, "topk", 4, 0),
    ):
        alone = train_checkpoint(
            two, hook, tmp_path / "alone" / name, kind, d_sae=32, k=k, batch=256, config=TrainConfig(lr=5e-3, seed=seed)
        )
        swept = load(tmp_path / name)
        for key, value in alone.state_dict().items():
            assert torch.equal(swept.state_dict()[key], value), (name, key)
        row = next(row for row in rows if row["name"] == name)
        assert row["l0"] == pytest.approx(k, rel=0.2)
        assert 0 < row["fvu"] < 1
    assert not (tmp_path / ".run").exists()


def test_hook_points_with_unlike_sinks_are_swept_as_each_alone(two, tmp_path, monkeypatch):
    """Where one hook point has more sinks it has fewer rows, and its pass ends earlier."""
    real = ActivationStore.norm_cutoff
    monkeypatch.setattr(
        ActivationStore, "norm_cutoff", lambda self, hook: real(self, hook) * (0.2 if hook == EARLY else 1.0)
    )
    assert two.batches(EARLY, 256).rows < 0.9 * two.batches(HOOK, 256).rows
    train_sweep(two, [EARLY, HOOK], tmp_path, {"d_sae": [32], "k": [4]}, batch=256)
    for hook in (EARLY, HOOK):
        alone = train_checkpoint(two, hook, tmp_path / "alone" / hook, d_sae=32, k=4, batch=256)
        swept = load(tmp_path / f"batchtopk-{hook}-d_sae32-k4")
        assert torch.equal(swept.W_enc, alone.W_enc)
        assert torch.equal(swept.threshold, alone.threshold)


def test_a_streamed_sweep_equals_each_alone(tiny, text_folder, tmp_path):
    source = stream(tiny, open_corpus(text_folder), [EARLY, HOOK], 8_192)
    train_sweep(source, [EARLY, HOOK], tmp_path, {"d_sae": [32], "k": [4]}, batch=256)
    for hook in (EARLY, HOOK):
        alone = train_checkpoint(source, hook, tmp_path / "alone" / hook, d_sae=32, k=4, batch=256)
        assert torch.equal(load(tmp_path / f"batchtopk-{hook}-d_sae32-k4").W_enc, alone.W_enc)
    assert (
        len(train_sweep(source, [EARLY, HOOK], tmp_path, {"d_sae": [32], "k": [4]}, batch=256)) == 2
    )  # nothing left to do


def test_a_sweep_skips_what_exists(two, tmp_path, capsys):
    first = train_sweep(two, [HOOK], tmp_path, {"d_sae": [32], "k": [4]}, batch=256)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    both = train_sweep(two, [HOOK], tmp_path, {"d_sae": [32], "k": [4, 5]}, batch=256)
    assert "1 of 2 exist already" in capsys.readouterr().err
    assert both[0] == first[0]
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_what_exists_is_kept_when_asked_again_and_never_taken_for_another(two, tmp_path, capsys):
    def make(**changed):
        return train_checkpoint(two, HOOK, tmp_path / "one", batch=256, **{**SIZES, **changed})

    first, when = make(), (tmp_path / "one" / "card.json").stat().st_mtime_ns
    assert torch.equal(make().W_enc, first.W_enc)
    assert "holds this SAE already" in capsys.readouterr().err
    with pytest.raises(InterpError, match=r"architecture.d_sae = 32, and 16 was asked; .*--restart"):
        make(d_sae=16, k=8)
    with pytest.raises(InterpError, match=r"architecture.k = 4, and 8 was asked"):
        make(k=8)
    with pytest.raises(InterpError, match=r"training.lr = .*, and 0.001 was asked"):
        make(config=TrainConfig(lr=1e-3))
    assert (tmp_path / "one" / "card.json").stat().st_mtime_ns == when
    assert not (tmp_path / "one" / ".run").exists()
    assert make(k=8, restart=True).d_sae == 32
    assert Card.read(tmp_path / "one").recipe["architecture"]["k"] == 8
    (tmp_path / "one" / "card.json").unlink()
    with pytest.raises(InterpError, match="an SAE without a card"):
        make()


def test_a_sweep_refuses_results_of_other_settings_and_leaves_other_runs_alone(two, tmp_path):
    grid = {"d_sae": [32], "k": [4]}
    train_sweep(two, [HOOK], tmp_path, grid, batch=256)
    with pytest.raises(InterpError, match=r"epochs = 1.0, and 2.0 was asked"):
        train_sweep(two, [HOOK], tmp_path, grid, batch=256, epochs=2.0)
    with pytest.raises(InterpError, match=r"training.warmup"):
        train_sweep(two, [HOOK], tmp_path, grid, batch=256, config=TrainConfig(warmup=0.3))
    other = tmp_path / ".run" / "unfinished" / "state.safetensors"
    other.parent.mkdir(parents=True)
    other.touch()
    train_sweep(two, [HOOK], tmp_path, {"d_sae": [32], "k": [5]}, batch=256)
    assert [path.name for path in (tmp_path / ".run").iterdir()] == ["unfinished"]
    assert other.exists()


def test_a_folder_that_cannot_be_written_in_is_said_before_anything_is_computed(two, tiny, text_folder, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "under"):
        with pytest.raises(InterpError, match=r"cannot write in .*file.*; choose another folder"):
            train_checkpoint(two, HOOK, folder, **SIZES)
        with pytest.raises(InterpError, match="cannot write in"):
            train_sweep(two, [HOOK], folder, {"d_sae": [32], "k": [4]})
        with pytest.raises(InterpError, match="cannot write in"):
            harvest(tiny, open_corpus(text_folder), [HOOK], 1_024, folder)
    assert file.read_text() == "mine"
    with pytest.raises(InterpError, match="name a folder"):
        train_checkpoint(two, HOOK, "", **SIZES)


def _seen(monkeypatch) -> dict[str, list]:
    """What the loop is given, when training is cut short before it begins."""
    given = {}

    def stop(batches, *runs, held_out, **more):
        parts = batches.parts if isinstance(batches, Together) else (batches,)
        given.update(batches=parts, held_out=held_out if isinstance(held_out, tuple) else (held_out,))
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.recipe.one.train", stop)
    monkeypatch.setattr("interp.recipe.grid.train_many", stop)
    return given


def _twins(blocks, first: int) -> int:
    """Positions from block `first` on that begin their block as one before does, so that a causal model gives one row for both."""
    real, tokens = blocks.real_NT(), blocks.tokens_NT.tolist()

    def beginnings(numbers) -> set[tuple[int, ...]]:
        return {tuple(tokens[n][: at + 1]) for n in numbers for at in range(blocks.block) if real[n, at]}

    return len(beginnings(range(first)) & beginnings(range(first, len(tokens))))


def test_held_out_rows_are_in_no_epoch_of_the_training_rows(two, tiny, text_folder, tmp_path, monkeypatch):
    given, grid = _seen(monkeypatch), {"d_sae": [32], "k": [4]}
    streamed = stream(tiny, open_corpus(text_folder), [EARLY, HOOK], 8_192)
    for number, source in enumerate((two, streamed)):
        with pytest.raises(KeyboardInterrupt):
            train_checkpoint(source, HOOK, tmp_path / str(number), batch=256, epochs=3, **SIZES)
        alone = given["held_out"][0]
        with pytest.raises(KeyboardInterrupt):
            train_sweep(source, [HOOK], tmp_path / "sweep", grid, batch=256, epochs=3)
        assert torch.equal(alone, given["held_out"][0])
        rows = {tuple(row) for row in torch.cat(list(given["batches"][0])).tolist()}
        held_out = {tuple(row) for row in alone.tolist()}
        assert len(rows) > 0.8 * 29 * 250
        assert 3 * 230 < len(held_out) <= 3 * 255  # the last 3 of 32 blocks
        assert len(rows & held_out) == _twins(source.blocks, 29)
        shards = two.read(two.shards[0], HOOK)[-3 * 256 :]
        assert float(torch.cdist(alone, shards).min(1).values.max()) < 1e-2


def test_the_card_says_what_was_held_out_and_another_text_is_refused(two, tiny, text_folder, tmp_path):
    def make(store, into, **options):
        return train_checkpoint(store, HOOK, tmp_path / into, batch=256, **SIZES, **options)

    corpus = open_corpus(text_folder)
    apart = harvest(tiny, corpus, [HOOK], 2_000, tmp_path / "apart", split="train")
    make(two, "a", held_out=apart)
    said = Card.read(tmp_path / "a").recipe["held_out"]
    assert (said["how"], said["tokens_sha256"]) == ("a text of its own", apart.recipe["tokens_sha256"])
    make(apart, "small")
    said = Card.read(tmp_path / "small").recipe["held_out"]
    assert (said["how"], said["blocks"]) == ("the last blocks of the text", [7, 8])
    with pytest.raises(InterpError, match="held_out.how = 'a text of its own', and 'the last blocks"):
        make(two, "a")
    other = ActivationStore(apart.folder, apart.recipe | {"model_sha256": "0", "model": "other"}, apart.shards)
    with pytest.raises(InterpError, match=r"holds activations of other, and not of the same model \(tiny-llama\)"):
        make(two, "b", held_out=other)

    def die(step):
        if step.step == 9:
            raise KeyboardInterrupt

    config = TrainConfig(save_every=500)
    with pytest.raises(KeyboardInterrupt):
        make(two, "c", config=config, listeners=[die])
    with pytest.raises(InterpError, match="holds a run with batches"):
        make(two, "c", config=config, held_out=apart)
    whole = make(two, "whole", config=config)
    assert torch.equal(make(two, "c", config=config).threshold, whole.threshold)


def test_a_stream_gives_the_models_rows_without_a_disk(tiny, text_folder, two):
    source = stream(tiny, open_corpus(text_folder), [EARLY, HOOK], 8_192)
    batches = source.batches(HOOK, 100, buffer=1024, seed=3)
    whole = list(batches)
    assert len(whole) == len(batches) > 50
    kept = torch.cat([rows.float() for _, rows in two.in_order(HOOK)])[two.keep(HOOK)]
    distance = torch.cdist(torch.cat(whole[:3]), kept, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    assert float(distance.max()) < 1e-3  # each is an activation of the same text
    assert len({tuple(row) for row in torch.cat(whole).tolist()}) > 0.95 * len(whole) * 100
    for first in (0, 7, 30, len(whole) - 1):
        rest = list(batches.from_batch(first))
        assert len(rest) == len(whole) - first
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[first:], strict=True))


def test_a_run_on_a_stream_goes_on_bit_for_bit(tiny, text_folder, tmp_path):
    source = stream(tiny, open_corpus(text_folder), HOOK, 8_192)
    rule, config = BatchTopK(d_in=16, d_sae=32, k=4), TrainConfig(save_every=1_000)
    batches = source.batches(HOOK, 128, buffer=1024)
    whole = train(batches, rule, config)
    run = steps(batches, rule, config, into=tmp_path)
    for step in run:
        if step.step == 21:
            break
    run.close()
    again = train(
        stream(tiny, open_corpus(text_folder), HOOK, 8_192).batches(HOOK, 128, buffer=1024), rule, config, into=tmp_path
    )
    assert torch.equal(again.W_enc, whole.W_enc)


def test_a_checkpoint_from_a_stream_has_its_card(tiny, text_folder, tmp_path):
    source = stream(tiny, open_corpus(text_folder), HOOK, 8_192)
    train_checkpoint(source, HOOK, tmp_path, **quick(**SIZES))
    card = Card.read(tmp_path)
    assert card.recipe["streamed"]
    assert card.model_sha256 == tiny.fingerprint()
    assert card.norm_cutoff > 0


def test_hook_points_in_step_are_each_as_alone(two):
    parts = tuple(two.batches(hook, 100) for hook in (EARLY, HOOK))
    for i, (a, b) in enumerate(zip(parts[0], parts[1], strict=False)):
        both = next(iter(Together(parts).from_batch(i)))
        assert torch.equal(both[0], a)
        assert torch.equal(both[1], b)


def test_the_selftest_tells_a_recipe_that_works_from_one_that_cannot():
    good = selftest("batchtopk", d_in=32, features=32, active=3, rows=120_000, batch=512, k=3)
    bad = selftest(
        "batchtopk", d_in=32, features=32, active=3, rows=120_000, batch=512, k=3, config=TrainConfig(lr=1e-6)
    )
    assert good["recovered"] >= 30
    assert bad["recovered"] <= 5
    assert good["mean_f1"] > bad["mean_f1"]
    assert good["recovered_by_random_rows"] <= 2
    json.dumps(good)


def test_the_selftest_does_not_blame_a_recipe_for_features_that_have_nothing_to_find(capsys):
    """Half of its features are more than were planted, and die."""
    found = selftest("batchtopk", d_in=32, features=32, active=3, rows=60_000, batch=512, k=3)
    assert found["d_sae"] == 64
    assert found["dead"] > 0.2 * 64
    assert "are dead" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s, p: train_checkpoint(s, HOOK, p, "transcoder", **SIZES), "a transcoder writes another hook point"),
        (
            lambda s, p: train_checkpoint(s, HOOK, p, "topk", writes=EARLY, **SIZES),
            "only a transcoder takes another",
        ),
        (
            lambda s, p: train_checkpoint(s, f"{EARLY}+{HOOK}", p, "topk", **SIZES),
            "topk reads one hook point; 2 were given",
        ),
        (lambda s, p: train_checkpoint(s, "blocks.9", p, "topk", **SIZES), "no harvested hook point 'blocks.9'"),
        (lambda s, p: train_checkpoint(s, HOOK, p, "batchtopk", d_sae=32), "batchtopk needs k"),
        (lambda s, p: train_sweep(s, [HOOK], p, {"k": [], "d_sae": [32]}), "the sweep has no value for k"),
        (lambda s, p: train_sweep(s, [HOOK], p, {"k": [64], "d_sae": [32]}), "k is 64, more than the 32 features"),
        (lambda s, p: train_checkpoint(s, HOOK, p, epochs=float("inf"), **SIZES), "epochs is inf; it must be"),
        (
            lambda s, p: train_sweep(
                s, [HOOK], p, {"architecture": ["topk", "transcoder"], **{k: [v] for k, v in SIZES.items()}}
            ),
            "transcoder reads several hook points; train it by itself",
        ),
        (lambda s, p: train_sweep(s, [HOOK], p, {"d_sae": [32], "k": [4], "l1": [3.0]}), "none of .* takes l1"),
        (lambda s, p: train_sweep(s, [HOOK], p, {"d_sae": [10**12], "k": [4]}), "1 SAE at once needs .* GiB of memory"),
        (lambda s, p: selftest(features=2, active=3), "3 features are to be active and only 2 are planted"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(two, tmp_path, make, message):
    with pytest.raises(InterpError, match=message):
        make(two, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_changed_text_is_refused_by_a_run_that_goes_on(two, tiny, text_folder, tmp_path):
    other = harvest(tiny, open_corpus(text_folder), [HOOK], 4_096, tmp_path / "other")
    rule = BatchTopK(d_in=16, d_sae=32, k=4)
    run = steps(two.batches(HOOK, 128), rule, TrainConfig(tokens=3_840, save_every=500), into=tmp_path / "run")
    for step in run:
        if step.step == 9:
            break
    run.close()
    with pytest.raises(InterpError, match=r"holds a run with batches\.blocks = \[0, 32\], and \[0, 16\] was asked"):
        train(other.batches(HOOK, 128), rule, TrainConfig(tokens=3_840, save_every=500), into=tmp_path / "run")


def embedded_recipe(monkeypatch, home, name="smollm2") -> ModuleType:
    """recipes/smollm2.py, or another recipe, as a module, which works in a home of its own."""
    monkeypatch.setenv("INTERP_HOME", str(home))
    spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / f"{name}.py")
    recipe = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, recipe)  # where its dataclass looks
    spec.loader.exec_module(recipe)
    return recipe


@pytest.mark.parametrize(
    ("stage", "message"), [("foo", "no stage 'foo'"), ("train", "train: there are no activations")]
)
def test_the_embedded_saes_recipe_answers_mistakes_in_a_sentence(monkeypatch, capsys, tmp_path, stage, message):
    recipe = embedded_recipe(monkeypatch, tmp_path)
    monkeypatch.setattr(sys, "argv", ["smollm2.py", stage])
    with pytest.raises(SystemExit) as ended:
        recipe.main()
    assert message in capsys.readouterr().err + str(ended.value)


def test_the_embedded_saes_are_trained_on_no_text_that_chooses_or_judges(monkeypatch, tmp_path):
    recipe = embedded_recipe(monkeypatch, tmp_path)
    assert not set(recipe.MIX) & {*recipe.CHOOSING, *recipe.JUDGING, "python", "sae-probes"}
    assert len(recipe.MIX) >= 10
    assert max(recipe.MIX.values()) <= sum(recipe.MIX.values()) / 4


@pytest.mark.slow
def test_the_embedded_saes_recipe_from_its_text_to_its_judgement(monkeypatch, tmp_path, capsys):
    """Every stage but the fetching of packages, over texts that are installed, with a thousandth of the tokens."""
    recipe = embedded_recipe(monkeypatch, tmp_path)
    own_home(monkeypatch, tmp_path)
    hooks = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    trials = {"plain": recipe.Recipe(k=4), "pairs": recipe.Recipe(k=4, options={"temporal": 0.01}, pairs="document")}
    small = {"TRAIN_TOKENS": 16_384, "HELDOUT_TOKENS": 4_096, "INDEX_TOKENS": 8_192, "CHOOSING_TOKENS": 512}
    small |= {
        "MEASURED_TOKENS": 512,
        "TRIAL_SHARDS": 1,
        "TRIAL_INDEX": 8_192,
        "TRIALS": trials,
        "CHOSEN": "pairs",
        "HOOKS": hooks,
        "TESTED": hooks[1],
        "RESERVED_TOKENS": 2_048,
    }
    small |= {"SAES": dict(zip(hooks, (64, 128), strict=True)), "INTO": tmp_path / "saes" / "tiny"}
    small |= {"MIX": {"wiki-en": 3, "wiki-fr": 1, "reviews": 2}, "CHOOSING": ("wiki-es",), "JUDGING": ("news",)}
    for name, value in small.items():
        monkeypatch.setattr(recipe, name, value)
    monkeypatch.setattr(sys, "argv", ["smollm2.py", *list(recipe.STAGES)[1:]])
    recipe.main()
    said = capsys.readouterr().err
    assert "plain: held_out FVU" in said
    assert said.count("by meaning") == 2
    for hook, d_sae in recipe.SAES.items():
        wb = Workbench.open(recipe.folder_of(hook))
        assert (wb.sae.d_sae, wb.card.hook_name) == (d_sae, hook)
        assert {"held_out", "wiki-es", "news"} == set(wb.card.metrics)
        assert sum(wb.card.corpus["shares"].values()) == pytest.approx(1, abs=1e-3)
        assert set(wb.card.metrics["held_out"]["fvu_by_source"]) <= {"wiki-en", "wiki-fr", "reviews"}
        assert wb.card.metrics["held_out"]["all_rows"]["tokens"] >= wb.card.metrics["held_out"]["tokens"]
        assert "not passed on" in wb.card.licences["text: reviews"]
        documents = wb.index.documents
        assert set(documents["trained_on"]) == {"yes", "no"}
        assert not documents["passes_on"][documents["source"] == "reviews"].any()
    assert len(list((recipe.INTO / "text").glob("tokens-*.parquet"))) == 1
    assert not list(recipe.INTO.rglob("index/tokens.parquet"))
    told = said.count("holds this SAE already")
    # Those that leave something behind; the others would only reckon the same again.
    monkeypatch.setattr(sys, "argv", ["smollm2.py", "harvest", "train", "index", "reserved"])
    recipe.main()
    assert capsys.readouterr().err.count("holds this SAE already") == told + 2
