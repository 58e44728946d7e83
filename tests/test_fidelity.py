"""The sections `fidelity`, `bias`, `dark_matter` and `geometry`: what they must give of dictionaries whose figures are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.checkpoint import load
from interp.evals import evaluate
from interp.evals.baseline import Losses, _spread, read_baseline, reconstruct
from interp.evals.bias import measure_bias
from interp.evals.dark_matter import measure_dark_matter
from interp.evals.documents import Documents
from interp.evals.fidelity import measure_fidelity, measure_several
from interp.evals.figure import Section
from interp.evals.geometry import measure_geometry, nearest_cosines
from interp.evals.in_place import Predictions, kl_divergence, random_error
from interp.models import Model, open_model
from interp.models.above import Above
from interp.sae import SAE
from interp.types import Hook, InterpError
from tests.conftest import HOOK
from tests.test_evals import copies

CUTOFF = 1e9


@pytest.fixture(scope="module")
def blocks(store):
    return replace(store.blocks, tokens_NT=store.blocks.tokens_NT[:2], document_NT=store.blocks.document_NT[:2])


@pytest.fixture(scope="module")
def base(tiny, blocks):
    return read_baseline(tiny, copies(16, Hook(HOOK)), blocks, norm_cutoff=CUTOFF)


def constant(value: torch.Tensor) -> SAE:
    """Nothing fires: x̂ is a constant."""
    sae = copies(16, Hook(HOOK))
    return SAE(W_enc=sae.W_enc, b_enc=sae.b_enc, W_dec=sae.W_dec, b_dec=value, threshold=torch.full((32,), 1e9), reads=HOOK)  # fmt: skip


def shifted(offset: torch.Tensor) -> SAE:
    """x̂ = x + offset."""
    sae = copies(16, Hook(HOOK))
    return SAE(W_enc=sae.W_enc, b_enc=sae.b_enc, W_dec=sae.W_dec, b_dec=offset, threshold=torch.zeros(32), reads=HOOK, centred=False)  # fmt: skip


def test_the_identity_scores_one_and_costs_nothing(base):
    section = measure_fidelity(base, reconstruct(base, copies(16, Hook(HOOK))))
    assert section["ev"].value == pytest.approx(1, abs=1e-9)
    assert section["fvu_median"].value == pytest.approx(0, abs=1e-9)
    for name in ("kl_score_zero", "kl_score_mean"):
        assert section[name].value == pytest.approx(1, abs=1e-5)
    assert section["delta_ce"].value == pytest.approx(0, abs=1e-6)
    assert section["kl"].value == pytest.approx(0, abs=1e-6)
    assert section["kl_ratio"].value is None  # nothing to compare: the random error has no length
    assert Section.from_dict(section.to_dict()) == section


def test_an_ablation_scores_nothing(base):
    mean = measure_fidelity(base, reconstruct(base, constant(base.mean_O.float())))
    assert mean["ev"].value == pytest.approx(0, abs=1e-6)
    assert mean["ce_sae"].value == pytest.approx(mean["ce_mean"].value, abs=1e-6)
    assert mean["kl_score_mean"].value == pytest.approx(0, abs=1e-6)
    assert mean["dead"].value == 32
    assert mean.rows[0] == {"fires at": "no position", "features": 32, "share": 1.0}
    zero = measure_fidelity(base, reconstruct(base, constant(torch.zeros(16))))
    assert zero["ce_sae"].value == pytest.approx(zero["ce_zero"].value, abs=1e-6)
    assert zero["kl_score_zero"].value == pytest.approx(0, abs=1e-6)


def test_the_share_of_the_loss_that_is_recovered(base):
    """Ablation adds 2 nats to each prediction, and the dictionary a quarter of that; the mean adds nothing that is sure."""
    count = base.predicted_P.astype(float)
    some = np.random.default_rng(0).normal(size=base.positions) * count
    added = {"clean": 0.0, "sae": 0.5, "zero": 2.0, "mean": 0.0, "random": 0.1}
    losses = {
        name: Losses(
            3 * count + amount * count + (some if name == "mean" else 0), np.full(base.positions, 0.1 + amount)
        )
        for name, amount in added.items()
    }
    section = measure_fidelity(base, reconstruct(base, copies(16, Hook(HOOK))), losses=losses)
    assert section["recovered_zero"].value == pytest.approx(0.75)
    assert section["recovered_zero"].interval == pytest.approx((0.75, 0.75))
    assert section["recovered_mean"].value is None
    assert "cannot be told from 0" in section["recovered_mean"].note
    assert section["kl_ratio"].value == pytest.approx(3.0)
    assert section["kl_score_zero"].value == pytest.approx(1 - 0.6 / 2.1)


def test_a_constant_offset_is_an_error_and_the_whole_of_it_is_found(base):
    offset = torch.linspace(-1, 1, 16)
    made = reconstruct(base, shifted(offset))
    wanted = base.positions * float(offset.square().sum()) / base.spread_P.sum()
    section = measure_fidelity(base, made)
    assert section["fvu"].value == pytest.approx(wanted, rel=1e-5)
    low, high = section["fvu"].interval
    assert low < section["fvu"].value < high
    assert measure_bias(base, made)["offset"].value == pytest.approx(1, rel=1e-5)


def test_the_variance_is_that_of_rows_far_from_zero():
    rows = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    near = _spread([rows])[2].sum()
    far = _spread([rows + 4096.0])[2].sum()
    assert far == pytest.approx(near, rel=1e-3)  # what float32 rows lose at 4096


def test_a_model_in_bfloat16_is_measured_in_float64_and_has_a_floor(tiny_folder, tiny, blocks):
    coarse = open_model(str(tiny_folder), dtype="bfloat16")
    base = read_baseline(coarse, copies(16, Hook(HOOK)), blocks, norm_cutoff=CUTOFF)
    assert base.x[HOOK].dtype == torch.bfloat16
    section = measure_fidelity(base, reconstruct(base, copies(16, Hook(HOOK), scale=0.9)))
    x = coarse.run(blocks.tokens_NT, [HOOK]).activations[HOOK][blocks.real_NT()].double()
    wanted = 1 - float((0.1 * x).square().sum() / (x - x.mean(0)).square().sum())
    assert section["ev"].value == pytest.approx(wanted, rel=1e-6)
    assert section["kl_floor"].value > 0
    logits = [
        m.run(blocks.tokens_NT, logits=True).logits[blocks.real_NT()].double().log_softmax(-1) for m in (tiny, coarse)
    ]
    slow = float((logits[0].exp() * (logits[0] - logits[1])).sum(-1).mean())
    assert section["kl_floor"].value == pytest.approx(slow, rel=1e-3)


def test_several_dictionaries_share_the_passes_that_do_not_depend_on_them(tiny, blocks, monkeypatch):
    saes, ran = [copies(16, Hook(HOOK), scale=s) for s in (0.9, 0.7, 0.5)], []
    alone = [measure_several(tiny, [sae], blocks, norm_cutoff=CUTOFF)[0] for sae in saes]
    for kind, name in ((Model, "run"), (Above, "logits")):  # whole passes, and those that begin at the hook point
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *a, real=real, **k: (ran.append(1), real(self, *a, **k))[1])
    together = measure_several(tiny, saes, blocks, norm_cutoff=CUTOFF)
    assert len(ran) == 1 + 3 + 2 * 3  # one batch: the rows; untouched and two ablations; each, and its random error
    for one, other in zip(alone, together, strict=True):
        assert one.figures == other.figures
    report = evaluate(tiny, saes[1], blocks, norm_cutoff=CUTOFF)
    for name, old in (
        ("fvu", "fvu"),
        ("l0", "l0"),
        ("ce", "ce"),
        ("delta_ce", "delta_ce"),
        ("recovered_mean", "recovered_mean"),
    ):
        want = getattr(report, old)  # None where what the ablation adds cannot be told from 0
        assert together[1][name].value == (want if want is None else pytest.approx(want, rel=1e-6)), name


def test_first_positions_and_sinks_are_apart(tiny, blocks):
    sae = copies(16, Hook(HOOK), scale=0.5)
    x = tiny.run(blocks.tokens_NT, [HOOK]).activations[HOOK].double()
    cutoff = float(x[blocks.real_NT()].norm(dim=-1).quantile(0.9))
    base = read_baseline(tiny, sae, blocks, norm_cutoff=cutoff)
    section = measure_fidelity(base, reconstruct(base, sae))
    own, large = blocks.real_NT(), x.norm(dim=-1) > cutoff
    mean = x[own & ~large].mean(0)

    def fvu(rows: torch.Tensor) -> float:
        return float((0.5 * rows).square().sum() / (rows - mean).square().sum())

    assert section["fvu"].value == pytest.approx(fvu(x[own & ~large]), rel=1e-5)
    assert section["fvu_first"].value == pytest.approx(fvu(x[:, 0]), rel=1e-5)
    assert section["fvu_sinks"].value == pytest.approx(fvu(x[own & large]), rel=1e-5)
    rows = x.flatten(0, 1)
    unmasked = 1 - float((0.5 * rows).square().sum() / (rows - rows.mean(0)).square().sum())
    assert section["ev_unmasked"].value == pytest.approx(unmasked, rel=1e-5)


def test_a_random_error_has_the_length_of_the_dictionarys(base):
    made = reconstruct(base, copies(16, Hook(HOOK), scale=0.5))
    put, y = random_error(base, made)(3, 40), base.rows(base.writes)[3:40]
    assert torch.allclose((put - y).norm(dim=1), 0.5 * y.norm(dim=1), rtol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(put - y, y, dim=1)
    assert cosine.abs().mean() < 0.5


def test_kl_is_that_of_the_formula_and_stays_exact_when_it_is_tiny():
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 1000, generator=draw, dtype=torch.float64) for _ in range(2))
    for step in (1.0, 1e-3):
        p, q = a.log_softmax(-1), (a + step * b).log_softmax(-1)
        wanted = (p.exp() * (p - q)).sum(-1)
        assert torch.allclose(kl_divergence(p.float(), q.float()), wanted, rtol=2e-2, atol=1e-9)
    ruled_out = torch.tensor([[0.0, float("-inf")]])
    assert float(kl_divergence(ruled_out, torch.log(torch.tensor([[0.5, 0.5]])))) == pytest.approx(np.log(2))


@pytest.mark.parametrize("ruled_out", [False, True])
def test_losses_of_a_changed_pass_are_those_of_its_logits_also_far_from_the_untouched_ones(ruled_out):
    draw = torch.Generator().manual_seed(0)
    tokens, counted = torch.randint(0, 300, (2, 9), generator=draw), torch.rand(2, 9, generator=draw) < 0.8
    clean, noise = (scale * torch.randn(2, 9, 300, generator=draw) for scale in (4, 1))
    if ruled_out:
        clean[:, :, 7] = float("-inf")  # by both passes
    here = Predictions(tokens, counted, clean)

    def wanted(logits):
        p, q = (x[counted].double().log_softmax(-1) for x in (clean, logits))
        kl = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0)
        return -q.gather(1, tokens.roll(-1, 1)[counted][:, None]).squeeze(1), kl.sum(-1)

    assert here.ce_P.numpy() == pytest.approx(wanted(clean)[0].numpy(), abs=2e-6)
    for step, add in ((1.0, 0.0), (1e-3, 0.0), (1e-2, 30.0), (40.0, 0.0)):  # the last moves logits by more than FAR
        ce, kl = here.ce_and_kl(clean + step * noise + add)
        right_ce, right_kl = wanted(clean + step * noise + add)
        assert ce == pytest.approx(right_ce.numpy(), rel=1e-5, abs=3e-6)
        assert kl == pytest.approx(right_kl.numpy(), rel=1e-5, abs=1e-7 if ruled_out else 1e-8 if add else 1e-9)
    if not ruled_out:
        assert (here.ce_and_kl(clean)[1] == 0).all()


def test_gamma_and_shrinkage_of_a_scaled_copy(base):
    section = measure_bias(base, reconstruct(base, copies(16, Hook(HOOK), scale=0.5)))
    assert section["shrinkage"].value == pytest.approx(0.5, rel=1e-5)
    assert section["gamma"].value == pytest.approx(0.5, rel=1e-5)
    assert section["relative_bias"].value == pytest.approx(0.5, rel=1e-5)


def test_an_error_that_is_linear_in_the_data_is_found_to_be(base, wb):
    linear = measure_dark_matter(base, reconstruct(base, copies(16, Hook(HOOK), scale=0.5)))
    assert linear["error_r2"].value == pytest.approx(1, abs=1e-4)
    assert linear["nonlinear"].value == pytest.approx(0, abs=1e-4)
    made = reconstruct(base, wb.sae)
    trained = measure_dark_matter(base, made)
    assert trained["error_r2"].value < 0.99
    e_PO = base.rows(base.writes) - made.made_PO
    noise = replace(made, made_PO=made.made_PO + e_PO - e_PO[torch.randperm(len(e_PO), generator=torch.Generator().manual_seed(0))])  # fmt: skip
    # Errors of other positions: nothing to predict, and less than nothing on documents that were not fitted.
    assert measure_dark_matter(base, noise)["error_r2"].value < 0.05


def test_duplicates_and_the_floor_of_a_flat_decoder():
    draw = torch.Generator().manual_seed(0)
    W_dec = torch.randn(64, 32, generator=draw)
    W_dec[1] = 2 * W_dec[0]
    sae = SAE(W_enc=W_dec.T.contiguous(), b_enc=torch.zeros(64), W_dec=W_dec, b_dec=torch.zeros(32), k=4)
    section = measure_geometry(sae)
    assert section["duplicates"].value == pytest.approx(2 / 64)
    assert section["alignment"].value == pytest.approx(1)
    assert section["nearest_median"].value == pytest.approx(section["nearest_median_chance"].value, abs=0.06)
    flat = torch.cat([W_dec[:, :2], torch.zeros(64, 30)], 1)  # two dimensions: neighbours by chance
    squeezed = measure_geometry(
        SAE(W_enc=flat.T.contiguous(), b_enc=torch.zeros(64), W_dec=flat, b_dec=torch.zeros(32), k=4)
    )
    assert squeezed["nearest_median_chance"].value > 0.99
    unit = W_dec / W_dec.norm(dim=1, keepdim=True)
    slow = (unit @ unit.T - 3 * torch.eye(64)).amax(1)
    assert torch.allclose(nearest_cosines(unit), slow)


def test_what_cannot_be_measured_says_why(tiny, blocks, base, tmp_path, checkpoint):
    with pytest.raises(InterpError, match=f"{HOOK} of tiny-llama has width 16 and sae reads 8 there: it was made for"):
        read_baseline(tiny, copies(8, Hook(HOOK)), blocks, norm_cutoff=CUTOFF)
    with pytest.raises(InterpError, match="measure it on a baseline of its own"):
        reconstruct(base, copies(16, Hook("blocks.0.hook_resid_post")))
    trained = load(checkpoint)
    with pytest.raises(
        InterpError, match=r"its card says 99\.0%: it was probably made for another model or hook point"
    ):
        measure_fidelity(base, reconstruct(base, constant(torch.zeros(16))), ev_said=0.99)
    one = replace(blocks, document_NT=torch.zeros_like(blocks.document_NT))
    lone = read_baseline(tiny, trained, one, norm_cutoff=CUTOFF)
    figure = measure_fidelity(lone, reconstruct(lone, trained))["ev"]
    assert figure.interval is None
    assert figure.note == "1 document is too few for an interval, which needs 10: give more text"
    with pytest.raises(InterpError, match="and this text has one; give more text"):
        measure_dark_matter(lone, reconstruct(lone, trained))


def test_the_median_is_drawn_by_documents():
    docs = Documents.number(np.repeat(np.arange(50) * 3, 4))
    values = np.repeat(np.arange(50.0), 4)
    figure = docs.median("m", "", values)
    assert figure.value == 24.5
    low, high = figure.interval
    assert 10 < low < 20
    assert 29 < high < 40
