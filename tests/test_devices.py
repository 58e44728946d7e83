"""One rule for devices: what computes moves its input, and gives its result where its weights are (see `elsewhere`)."""

import hashlib
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from interp.evals import evaluate
from interp.index import IndexConfig, build_index
from interp.models import open_model
from interp.sae import (
    SAE,
    BatchTopK,
    Crosscoder,
    Gated,
    JumpReLU,
    Matryoshka,
    Standard,
    TopK,
    Transcoder,
)
from interp.sae.metrics import reconstruction
from interp.steering import Ablate, Add, Clamp, Direction, Hooked, Orthogonal, Scale, When, compile_edits
from interp.training import TrainConfig, steps, train
from interp.training.finish import with_feature_thresholds
from interp.types import FeatureRef
from interp.workbench import Workbench
from tests.conftest import HOOK
from tests.elsewhere import elsewhere

EARLY = "blocks.0.hook_resid_post"


def small(kind: str, seed: int = 0) -> SAE:
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(16, 64, generator=draw)
    rule = {"k": 4} if kind == "topk" else {"threshold": torch.full((64,), 4.0)}
    skip = {"W_skip": torch.randn(16, 16, generator=draw), "centred": False} if kind == "skip" else {}
    return SAE(W_enc=W, b_enc=torch.zeros(64), W_dec=W.T.contiguous(), b_dec=torch.ones(16) * 0.1, **rule, **skip)


def rows(count: int, width: int = 16) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def test_the_second_device_refuses_what_a_gpu_refuses():
    here = torch.ones(3)
    with elsewhere() as device:
        there = torch.ones(3, device=device)
        for mixed in (lambda: here + there, lambda: there[torch.tensor([1])], lambda: torch.cat([here, there])):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        assert torch.equal((there + 1).cpu(), here + 1)
        with torch.inference_mode():
            assert torch.equal(here.to(device).to("cpu", torch.float64), here.double())


@pytest.mark.parametrize("kind", ["jumprelu", "topk", "skip"])
def test_an_sae_moves_rows_that_lie_on_the_cpu(kind):
    sae, x_BD = small(kind), rows(40)

    def everything(sae: SAE) -> list[torch.Tensor]:
        active, z_BF = sae.active(x_BD), sae.encode(x_BD)
        padded = sae.encode_sparse(x_BD)
        made = [active.features, active.values, *padded, z_BF, sae.pre_activations(x_BD), sae.encode_feature(x_BD, 3)]
        return [*made, sae.decode(z_BF.cpu()), sae.decode_active(active, x_BD), sae.reconstruct(x_BD), sae(x_BD[:2])]

    wanted, measured = everything(sae), reconstruction(sae, x_BD)
    with elsewhere() as device:
        sae.to(device)
        for got, want in zip(everything(sae), wanted, strict=True):
            assert got.device == device
            assert torch.equal(got.cpu(), want)
        again = reconstruction(sae, x_BD)
        assert (again.fvu, again.l0, again.dead) == (measured.fvu, measured.l0, measured.dead)


SIZES = {"d_in": 16, "d_sae": 64}
PAIRS = [(x, x[:, :8].contiguous()) for x in rows(2048).split(256)]
TRAINED = {
    "standard": (Standard(**SIZES), {"resample": True}),
    "gated": (Gated(**SIZES), {}),
    "topk": (TopK(k=4, **SIZES), {}),
    "batchtopk": (BatchTopK(k=4, **SIZES), {"orthogonal": 0.1}),
    "step": (JumpReLU(form="step", **SIZES), {"resample": True}),
    "quadratic": (JumpReLU(l0=4, **SIZES), {}),
    "tanh": (JumpReLU(form="tanh", **SIZES), {}),
    "matryoshka": (Matryoshka(k=4, **SIZES), {}),
    "temporal": (BatchTopK(k=4, temporal=0.05, **SIZES), {}),
    "transcoder": (Transcoder(d_out=8, k=4, skip=True, **SIZES), {}),
    "crosscoder": (Crosscoder(widths=(16, 8), d_sae=64, k=4), {}),
}


class Paired(list):
    """Batches that say that their rows are pairs."""

    pairs = "neighbours"


def batches(name: str) -> list:
    if name == "temporal":
        return Paired(x for x, _ in PAIRS)
    return PAIRS if name in ("transcoder", "crosscoder") else [x for x, _ in PAIRS]


def settings(device: str, **more) -> TrainConfig:
    # Dead from the second batch on, so that AuxK and resampling have their part.
    return TrainConfig(device=device, tokens=1536, dead_after=256, lr=1e-3, bfloat16=False, **more)


@pytest.mark.parametrize("name", TRAINED)
def test_training_takes_place_on_the_device_and_gives_the_same_sae(name):
    architecture, more = TRAINED[name]
    wanted = train(batches(name), architecture, settings("cpu", **more))
    with elsewhere() as device:
        got = train(batches(name), architecture, settings(str(device), **more))
        assert got.device == device
        for part in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip"):
            want = getattr(wanted, part)
            # Adam's step is one kernel on the CPU and several there, so a float16 weight may be the next one.
            assert want is None or torch.allclose(getattr(got, part).cpu(), want, rtol=2e-3, atol=1e-5)


def test_thresholds_for_each_feature_are_set_where_the_sae_is():
    sae, x_BD = small("jumprelu"), rows(400)
    one = SAE(**(sae.state_dict() | {"threshold": torch.ones(sae.d_sae)}), reads=sae.reads)
    wanted = with_feature_thresholds(one, x_BD, x_BD, 2).threshold
    assert len(wanted.unique()) > 1
    with elsewhere() as device:
        got = with_feature_thresholds(one.to(device), x_BD, x_BD, 2)
        assert got.device == device
        assert torch.allclose(got.threshold.cpu(), wanted, rtol=2e-3)


def test_a_run_goes_on_on_another_device(tmp_path):
    given, architecture = batches("topk"), TRAINED["topk"][0]
    wanted = train(given, architecture, settings("cpu"))
    with elsewhere() as device:
        going = steps(given, architecture, settings(str(device), save_every=512), into=tmp_path)
        for _ in range(4):
            next(going)
        going.close()
        with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
            assert set(file.keys()) >= {"p.W_dec", "adam.exp_avg.W_dec"}
    *_, last = events = list(steps(given, architecture, settings("cpu", save_every=512), into=tmp_path))
    assert last.sae.device.type == "cpu"
    assert last.step == 6
    assert any("saved on meta and goes on on cpu" in note for step in events for note in step.notes)
    assert torch.allclose(last.sae.W_dec, wanted.W_dec, rtol=2e-3, atol=1e-5)


def test_held_out_rows_and_batches_may_lie_on_different_devices():
    given, architecture = batches("batchtopk"), TRAINED["batchtopk"][0]
    wanted = train(given[:6], architecture, settings("cpu"), held_out=given[6])
    with elsewhere() as device:
        mixed = [x.to(device) if i % 2 else x for i, x in enumerate(given[:6])]
        for where in ("cpu", str(device)):
            got = train(mixed, architecture, settings(where), held_out=given[6].to(device))
            assert torch.allclose(got.threshold.cpu(), wanted.threshold, rtol=2e-3)


def test_an_index_of_an_sae_elsewhere_is_the_same_bytes(checkpoint, store, tiny, wb, tmp_path):
    build_index(wb.sae, store, tiny, tmp_path / "here", IndexConfig(), norm_cutoff=wb.card.norm_cutoff)
    with elsewhere() as device:
        wb.sae.to(device)
        build_index(wb.sae, store, tiny, tmp_path / "there", IndexConfig(), norm_cutoff=wb.card.norm_cutoff)
    for name in ("activations", "features", "positions", "examples", "tokens"):
        here, there = ((tmp_path / place / f"{name}.parquet").read_bytes() for place in ("here", "there"))
        assert hashlib.sha256(here).digest() == hashlib.sha256(there).digest(), name


def edits() -> list[list]:
    direction = Direction(name="d", hook_name=HOOK, vector=tuple(rows(1)[0].tolist()), norm_cutoff=1e9)
    earlier = When(above=0.1, feature=FeatureRef(sae="early", feature=2))
    return [
        [Clamp(feature=3, strength=5.0), Scale(feature=4, strength=2.0), Ablate(feature=5)],
        [Add(feature=direction, strength=2.0), Orthogonal(feature=direction)],
        [Clamp(feature=3, strength=5.0, along=direction), Add(feature=6, strength=0.5, unit="residual")],
        [Clamp(feature=3, strength=5.0, when=earlier), Clamp(feature=7, strength=1.0, when=When(above=0.0))],
    ]


@pytest.mark.parametrize("kind", ["jumprelu", "topk"])
@pytest.mark.parametrize("which", ["both", "the second"])
def test_edits_of_saes_elsewhere_move_the_model_alike(tiny, kind, which):
    saes = {"": Hooked(small(kind), 1e9, 0), "early": Hooked(small(kind, 2), 1e9, 0)}
    saes[""].sae.set_hooks(HOOK)
    saes["early"].sae.set_hooks(EARLY)
    tokens_BT = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(3))

    def after() -> list[torch.Tensor]:
        made = [compile_edits([each], saes, order=[EARLY, HOOK]) for each in edits()]
        return [tiny.run(tokens_BT, [HOOK], edits=edit).activations[HOOK] for edit in made]

    wanted = after()
    with elsewhere() as device:
        for name in ("", "early") if which == "both" else ("early",):
            saes[name].sae.to(device)
        for got, want in zip(after(), wanted, strict=True):
            assert got.device.type == "cpu"
            assert torch.allclose(got, want, atol=1e-6)


def test_a_model_elsewhere_runs_under_edits_of_saes_on_the_cpu(tiny, tiny_folder):
    saes = {"": Hooked(small("jumprelu"), 1e9, 0), "early": Hooked(small("topk", 2), 1e9, 0)}
    saes[""].sae.set_hooks(HOOK)
    saes["early"].sae.set_hooks(EARLY)
    tokens_BT = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(3))
    with elsewhere() as device:
        other = open_model(str(tiny_folder), dtype="float32", device=str(device))
        for each in edits():
            wanted, got = (
                model.run(tokens_BT, [HOOK], edits=compile_edits([each], saes, order=[EARLY, HOOK])).activations[HOOK]
                for model in (tiny, other)
            )
            assert got.device == device
            assert torch.allclose(
                got.cpu(), wanted, rtol=1e-4, atol=1e-4
            )  # attention is computed by other kernels there


def test_what_the_workbench_asks_of_a_model_on_another_device_than_its_sae(checkpoint, tiny, wb, store):
    blocks = replace(store.blocks, tokens_NT=store.blocks.tokens_NT[:4], document_NT=store.blocks.document_NT[:4])
    text = "The capital of France is Paris."

    def asked(wb: Workbench) -> list:
        spectrum, report = wb.spectrum(text), evaluate(tiny, wb.sae, blocks, norm_cutoff=wb.card.norm_cutoff)
        largest = wb.largest([text, "A cat sat on the mat."], 16)
        return [spectrum.rows.tolist(), spectrum.values.tolist(), largest.tolist(), report.to_dict()]

    assert wb.model is not None
    wanted = asked(wb)
    with elsewhere() as device:
        wb.sae.to(device)
        got = asked(wb)
    assert got == wanted
