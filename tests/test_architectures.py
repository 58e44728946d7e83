"""Each architecture against a slow, obvious version of its loss, differentiated by autograd; saved and opened again."""

import pytest
import torch
from torch.autograd import Function

from interp.checkpoint import load, save_weights
from interp.sae import (
    ARCHITECTURES,
    BatchTopK,
    Crosscoder,
    Gated,
    JumpReLU,
    Matryoshka,
    Standard,
    TopK,
    Transcoder,
    make_architecture,
)
from interp.sae.architecture import Moment
from interp.sae.temporal import TEMPERATURE
from interp.training.config import TrainConfig
from interp.training.finish import finish
from interp.training.optimise import optimise
from interp.training.state import initial
from interp.types import InterpError

B, D, D_OUT, F, K = 48, 10, 6, 24, 3
SHARE = 0.5


class Jump(Function):
    """p [p > θ], with the straight-through gradients of a window of width ε in θ and, if asked, in p."""

    @staticmethod
    def forward(ctx, p, theta, width, into):
        ctx.save_for_backward(p, theta)
        ctx.width, ctx.into = width, into
        return p * (p > theta)

    @staticmethod
    def backward(ctx, dz):
        p, theta = ctx.saved_tensors
        window = ((p - theta).abs() < ctx.width / 2).to(dz.dtype) * theta / ctx.width
        return dz * ((p > theta) + (window if ctx.into else 0.0)), -(dz * window).sum(0), None, None


class Count(Function):
    """[p > θ], whose gradient reaches θ only."""

    @staticmethod
    def forward(ctx, p, theta, width):
        ctx.save_for_backward(p, theta)
        ctx.width = width
        return (p > theta).to(p.dtype)

    @staticmethod
    def backward(ctx, dz):
        p, theta = ctx.saved_tensors
        window = ((p - theta).abs() < ctx.width / 2).to(dz.dtype)
        return None, -(dz * window).sum(0) / ctx.width, None


def flat_topk(pre, count):
    top = pre.view(-1).topk(count)
    return torch.zeros_like(pre.view(-1)).scatter(0, top.indices, top.values.relu()).view_as(pre)


def obvious_contrast(z_BH):
    """Cross-entropy of finding each position's own neighbour among the batch's, both ways, by cosines."""
    earlier, later = z_BH[0::2], z_BH[1::2]
    cosines = torch.nn.functional.cosine_similarity(later[:, None], earlier[None], dim=2) / TEMPERATURE
    own = torch.arange(len(cosines))
    return torch.nn.functional.cross_entropy(cosines, own) + torch.nn.functional.cross_entropy(cosines.T, own)


def obvious_loss(rule, q, u, t):
    """Mean over rows of the squared error summed over columns, and the architecture's penalties."""
    pre = u @ q["W_enc"].T + q["b_enc"]
    norm = q["W_dec"].norm(dim=1)
    if isinstance(rule, Standard):
        z = pre.relu()
        return (z @ q["W_dec"] - t).square().sum() / B + rule.l1 * (z * norm).sum() / B
    if isinstance(rule, Gated):
        z = (pre > 0) * ((pre - q["b_enc"]) * q["r_mag"].exp() + q["b_mag"]).relu()
        main = (z @ q["W_dec"] - t).square().sum() / B + rule.l1 * (pre.relu() * norm).sum() / B
        return main + (pre.relu() @ q["W_dec"].detach() - t.detach()).square().sum() / B
    if isinstance(rule, JumpReLU):
        z = Jump.apply(pre, q["threshold"], rule.bandwidth, rule.form == "tanh")
        error = (z @ q["W_dec"] - t).square().sum() / B
        l0 = Count.apply(pre, q["threshold"], rule.bandwidth).sum() / B
        if rule.form == "step":
            return error + rule.coefficient * l0
        if rule.form == "quadratic":
            return error + rule.coefficient * (l0 / rule.l0 - 1) ** 2
        tanh = rule.coefficient * SHARE * (4 * z * norm).tanh().sum() / B
        return error + tanh + 3e-6 * ((q["threshold"] - pre).relu() * norm).sum() / B
    if isinstance(rule, TopK):
        top = pre.topk(K, dim=1)
        z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    else:
        z = flat_topk(pre, K * B)
    more = 0.0
    if getattr(rule, "temporal", 0.0):
        high = rule.prefixes[0] if isinstance(rule, Matryoshka) else round(rule.high * F)
        more = rule.temporal * D * obvious_contrast(z[:, :high])
    if isinstance(rule, Matryoshka):
        parts = [z[:, :m] @ q["W_dec"][:m] - t for m in rule.prefixes]
        return sum(part.square().sum() for part in parts) / (B * len(parts)) + more
    if isinstance(rule, Transcoder) and rule.skip:
        t = t - u @ q["W_skip"].T
    return (z @ q["W_dec"] - t).square().sum() / B + more


RULES = {
    "standard": Standard(d_in=D, d_sae=F, l1=0.7),
    "gated": Gated(d_in=D, d_sae=F, l1=0.7),
    "topk": TopK(d_in=D, d_sae=F, k=K),
    "batchtopk": BatchTopK(d_in=D, d_sae=F, k=K),
    "jumprelu step": JumpReLU(d_in=D, d_sae=F, form="step", coefficient=0.3, bandwidth=0.8),
    "jumprelu quadratic": JumpReLU(d_in=D, d_sae=F, form="quadratic", l0=2.0, bandwidth=0.8),
    "jumprelu tanh": JumpReLU(d_in=D, d_sae=F, form="tanh", coefficient=0.3),
    "matryoshka": Matryoshka(d_in=D, d_sae=F, k=K, prefixes=(4, 10, 24), anneal=0.0),
    "temporal batchtopk": BatchTopK(d_in=D, d_sae=F, k=K, temporal=0.02, high=0.5),
    "temporal matryoshka": Matryoshka(d_in=D, d_sae=F, k=K, prefixes=(8, 24), anneal=0.0, temporal=0.02),
    "transcoder": Transcoder(d_in=D, d_out=D_OUT, d_sae=F, k=K),
    "skip transcoder": Transcoder(d_in=D, d_out=D_OUT, d_sae=F, k=K, skip=True),
    "crosscoder": Crosscoder(widths=(4, 6), d_sae=F, k=K),
}


def rows(rule, seed=0, count=B):
    torch.manual_seed(seed)
    x = torch.randn(count, D) * 2 + 1
    if rule.traits.widths:
        return tuple(x.split(list(rule.widths), dim=1))
    return (x, x @ torch.randn(D, D_OUT)) if rule.traits.pairs else x


def begun(rule, seed=0):
    """A state some way into training: nothing is zero or symmetric."""
    batch = rows(rule, seed)
    parts = (batch,) if isinstance(batch, torch.Tensor) else batch
    x, y = (torch.cat(parts, 1),) * 2 if rule.traits.widths else (parts[0], parts[-1])
    state = initial(x, y, rule, seed)
    for name, value in state.p.items():
        noise = torch.randn(value.shape) * 0.1
        value += noise.abs() if name == "threshold" else noise
    return state, batch, x, y


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", RULES)
def test_gradients_and_loss_equal_autograds(name, dense, monkeypatch):
    rule = RULES[name]
    if not dense:
        monkeypatch.setattr("interp.sae.kernels.SPARSE_SHARE", 100.0)  # sparse sums at any density
    state, _, x, y = begun(rule)
    q = {key: value.clone().requires_grad_() for key, value in state.p.items()}
    t = y * state.scale_out - q["b_dec"]
    u = t if rule.traits.centred else x * state.scale_in
    loss = obvious_loss(rule, q, u, t)
    loss.backward()
    given = {key: value.detach() for key, value in q.items()}
    moment = Moment(SHARE, torch.tensor(5.0), torch.float32)
    out = rule.gradients(given, u.detach(), t.detach(), moment)
    for key in q.keys() - {"b_dec"}:
        torch.testing.assert_close(out.grads[key], q[key].grad, atol=1e-5, rtol=1e-4, msg=lambda m, k=key: f"{k}: {m}")
    b_dec = out.g_BO.sum(0) - (out.into_F @ given["W_enc"] if rule.traits.centred else 0.0)
    torch.testing.assert_close(b_dec, q["b_dec"].grad, atol=1e-4, rtol=1e-4)
    assert float(out.error_BO.square().sum()) / B + out.penalty == pytest.approx(float(loss.detach()), rel=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_a_step_lowers_the_loss_and_a_run_learns(name):
    rule = RULES[name]
    state, batch, _, _ = begun(rule)
    config = TrainConfig(tokens=B * 300, lr=5e-3, bfloat16=False).resolved(rule, B * 300)
    first = optimise(state, rule, config, batch, 0.5).loss
    for _ in range(200):
        last = optimise(state, rule, config, batch, 0.5).loss
    assert last < 0.7 * first


@pytest.mark.parametrize("name", RULES)
def test_the_finished_sae_does_on_raw_rows_what_training_did_on_scaled_ones(name, tmp_path):
    rule = RULES[name]
    state, _, x, y = begun(rule)
    sae = finish(state, rule, x)
    u = (y * state.scale_out - state.p["b_dec"]) if rule.traits.centred else x * state.scale_in
    made = rule.inference(state.p)
    pre = u @ made.W_enc.T + made.b_enc
    if made.k:
        top = pre.topk(made.k, dim=1)
        z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    elif made.per_row:
        z = flat_topk(pre, made.per_row * B)
    else:
        z = pre * (pre > made.threshold)
    out = z @ state.p["W_dec"] + state.p["b_dec"]
    if "W_skip" in state.p:
        out = out + u @ state.p["W_skip"].T
    scale = float(y.std())
    close = (sae.reconstruct(x) - out / state.scale_out).abs() < 2e-2 * scale  # weights are rounded to float16
    assert float(close.float().mean()) > 0.97  # an entry on the edge of a threshold may fall on its other side
    if not made.k:
        assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(F), atol=1e-3)
    save_weights(sae, tmp_path / name)
    again = load(tmp_path / name)
    assert torch.equal(again.reconstruct(x), sae.reconstruct(x))
    assert again.widths == sae.widths
    assert again.centred == sae.centred


SAELENS = sorted(set(RULES) - {"crosscoder"})  # for which SAELens has no format


@pytest.mark.parametrize("name", SAELENS)
def test_saelens_opens_the_folder_and_agrees(name, tmp_path):
    from sae_lens import SAE as Theirs

    rule = RULES[name]
    state, _, x, _ = begun(rule)
    sae = finish(state, rule, x)
    save_weights(sae, tmp_path)
    theirs = Theirs.load_from_disk(str(tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(x), sae.encode(x), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(theirs(x), sae.reconstruct(x), atol=1e-4, rtol=1e-4)


def test_matryoshkas_first_prefix_reconstructs_better_alone_than_batchtopks():
    torch.manual_seed(5)
    truth = torch.nn.functional.normalize(torch.randn(24, D), dim=1)
    code = torch.rand(4096, 24) * (torch.rand(4096, 24) < 0.12)
    x = code @ truth * 5
    errors = {}
    for rule in (RULES["matryoshka"], RULES["batchtopk"]):
        state = initial(x, x, rule, 0)
        config = TrainConfig(tokens=512 * 400, lr=5e-3, bfloat16=False).resolved(rule, 512 * 400)
        for i in range(400):
            optimise(state, rule, config, x[(i % 8) * 512 : (i % 8 + 1) * 512], i / 400)
        sae = finish(state, rule, x)
        z = sae.encode(x)
        z[:, 4:] = 0
        errors[type(rule).__name__] = float((sae.decode(z) - x).square().sum())
    assert errors["Matryoshka"] < 0.8 * errors["BatchTopK"]


def test_jumprelu_holds_the_l0_it_aims_at():
    torch.manual_seed(6)
    truth = torch.nn.functional.normalize(torch.randn(48, 16), dim=1)
    x = (torch.rand(4096, 48) * (torch.rand(4096, 48) < 0.08)) @ truth * 5
    rule = JumpReLU(d_in=16, d_sae=48, form="quadratic", l0=4.0)
    state = initial(x, x, rule, 0)
    config = TrainConfig(tokens=512 * 800, lr=5e-3, bfloat16=False).resolved(rule, 512 * 800)
    for i in range(800):
        optimise(state, rule, config, x[(i % 8) * 512 : (i % 8 + 1) * 512], i / 800)
    sae = finish(state, rule, x)
    assert float((sae.encode(x) > 0).sum()) / len(x) == pytest.approx(4.0, rel=0.1)


def test_a_gate_becomes_a_threshold_without_a_change():
    rule = RULES["gated"]
    state, _, _, y = begun(rule)
    made, u = rule.inference(state.p), y * state.scale_out - state.p["b_dec"]
    a = u @ state.p["W_enc"].T
    gated = (a + state.p["b_enc"] > 0) * (a * state.p["r_mag"].exp() + state.p["b_mag"]).relu()
    pre = u @ made.W_enc.T + made.b_enc
    torch.testing.assert_close(pre * (pre > made.threshold), gated, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_architecture("relu", d_in=4, d_sae=8), "no architecture 'relu'"),
        (lambda: make_architecture("standard", d_in=4, d_sae=8, k=2), "standard takes no k; it takes d_in, d_sae, l1"),
        (lambda: make_architecture("topk", d_in=4, d_sae=8), "topk needs k"),
        (lambda: TopK(d_in=4, d_sae=8, k=9), "k is 9, more than the 8 features"),
        (lambda: BatchTopK(d_in=4, d_sae=0, k=1), "d_sae is 0"),
        (lambda: Standard(d_in=4, d_sae=8, l1=-1.0), "l1 is -1.0; it must be a positive number"),
        (lambda: JumpReLU(d_in=4, d_sae=8, l0=9), "l0 is 9, more than the 8 features"),
        (lambda: JumpReLU(d_in=4, d_sae=8, form="stepp"), "no form of JumpReLU 'stepp': did you mean step"),
        (lambda: Matryoshka(d_in=4, d_sae=8, k=2, prefixes=(4, 2, 8)), "must ascend"),
        (lambda: Matryoshka(d_in=4, d_sae=8, k=2, prefixes=(2, 4)), "end at d_sae, 8"),
        (lambda: BatchTopK(d_in=4, d_sae=8, k=2, temporal=-0.1), "temporal is -0.1; it is a weight, 0 or more"),
        (lambda: Matryoshka(d_in=4, d_sae=8, k=2, temporal=float("nan")), "temporal is nan; it is a weight"),
        (lambda: BatchTopK(d_in=4, d_sae=8, k=2, high=0.0), "high is 0.0; it is a share of the features"),
        (lambda: Crosscoder(widths=(4,), d_sae=8, k=2), "two hook points or more"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(make, message):
    with pytest.raises(InterpError, match=message):
        make()


def test_every_architecture_has_a_name():
    assert {type(rule) for rule in RULES.values()} == set(ARCHITECTURES.values())
