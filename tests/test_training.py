"""Training on synthetic activations: no language model is needed."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from interp.sae import BatchTopK, TopK
from interp.training import TrainConfig, steps, train
from interp.training.loop import _Worker
from interp.training.state import initial
from interp.types import InterpError


def planted(features=24, d_in=32, rows=40_000, active=3, seed=0):
    """(rows, truth): sparse positive mixtures of random directions, away from the origin."""
    torch.manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.randn(features, d_in), dim=1)
    code = torch.zeros(rows, features)
    code.scatter_(1, torch.rand(rows, features).topk(active, dim=1).indices, 1 + torch.rand(rows, active))
    return code @ truth * 7 + 3, truth


def batches(x, size=512, epochs=8, seed=0):
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed + epoch))
        yield from (x[rows] for rows in order.split(size) if len(rows) == size)


@pytest.mark.parametrize("architecture", [BatchTopK, TopK])
def test_planted_features_come_back(architecture):
    x, truth = planted()
    config = TrainConfig(tokens=8 * 39_936, lr=5e-3, bfloat16=False)
    sae = train(batches(x), architecture(d_in=32, d_sae=48, k=3), config, held_out=x[:4096])
    cosine = (torch.nn.functional.normalize(sae.W_dec, dim=1) @ truth.T).max(0).values
    # A random dictionary of this width reaches about .5.
    assert float((cosine > 0.95).float().mean()) >= 0.9
    error = (x - sae.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) < 0.1


def test_the_saved_threshold_gives_the_l0_that_was_asked():
    x, _ = planted()
    sae = train(batches(x, epochs=2), BatchTopK(d_in=32, d_sae=48, k=3), TrainConfig(tokens=60_000), held_out=x[:8192])
    assert sae.rule == "jumprelu"
    assert float((sae.encode(x[:8192]) > 0).sum() / 8192) == pytest.approx(3, rel=0.02)


def test_decoder_rows_have_unit_norm():
    x, _ = planted()
    sae = train(batches(x, epochs=1), TopK(d_in=32, d_sae=48, k=3), TrainConfig(tokens=30_000), held_out=x[:512])
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-3)  # float16 rounding


@pytest.mark.parametrize("architecture", [BatchTopK, TopK])
def test_a_steps_gradients_equal_autograd_auxk_included(architecture):
    x, _ = planted(rows=64)
    rule = architecture(d_in=32, d_sae=40, k=3)
    state = initial(x, 40, 1e-3, seed=1)
    state.b_enc += torch.randn(40) * 0.1
    state.idle_F[::4] = 10**9  # a quarter counts as dead
    config = TrainConfig(bfloat16=False, aux_k=5)
    leaves = {name: getattr(state, name).clone().requires_grad_() for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    scaled = x * state.scale
    pre = (scaled - leaves["b_dec"]) @ leaves["W_enc"].T + leaves["b_enc"]
    flat = pre.relu().view(-1) if architecture is BatchTopK else None
    if flat is not None:
        code = torch.zeros_like(flat).scatter(0, flat.topk(3 * 64).indices, flat.topk(3 * 64).values).view(64, 40)
    else:
        top = pre.topk(3, dim=1)
        code = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    error = code @ leaves["W_dec"] + leaves["b_dec"] - scaled
    dead = torch.arange(0, 40, 4)
    # The auxiliary loss sees the encoder's input as it is (b_dec gets no gradient from it).
    aux_pre = (scaled - leaves["b_dec"].detach()) @ leaves["W_enc"][dead].T + leaves["b_enc"][dead]
    top = aux_pre.topk(5, dim=1)
    aux = torch.zeros_like(aux_pre).scatter(1, top.indices, top.values.relu()) @ leaves["W_dec"][dead]
    loss = error.square().mean() + config.aux_alpha * (aux + error.detach()).square().mean()
    loss.backward()
    worker = _Worker(rule, config, state)
    worker._update = lambda lr: None
    worker.step(x, 0.0)
    for name, leaf in leaves.items():
        torch.testing.assert_close(getattr(state, name).grad, leaf.grad, atol=1e-6, rtol=1e-4)


class Rows:
    """Batches that can begin anywhere, as a store's do."""

    batch_size = 256

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x) // 256

    def __iter__(self):
        return self.from_batch(0)

    def from_batch(self, first):
        return iter(self.x.split(256)[first : len(self)])


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    x, _ = planted(rows=256 * 40)
    rule = BatchTopK(d_in=32, d_sae=48, k=3)
    config = TrainConfig(save_every=256 * 5, dead_after=2_000)
    whole = train(Rows(x), rule, config, held_out=x[:2048])
    run = steps(Rows(x), rule, config, held_out=x[:2048], into=tmp_path)
    for step in run:
        if step.step == 17:  # as if killed: only what was saved at step 15 remains
            break
    run.close()
    again = train(Rows(x), rule, config, held_out=x[:2048], into=tmp_path)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name


SCRIPT = """
import sys, torch
from tests.test_training import Rows, planted
from interp.sae import BatchTopK
from interp.training import TrainConfig, train
x, _ = planted(rows=256 * 4000)
torch.set_num_threads(1)
train(Rows(x), BatchTopK(d_in=32, d_sae=48, k=3), TrainConfig(save_every=10**9), held_out=x[:256], into=sys.argv[1])
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_in_hand(tmp_path, kind):
    run = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.DEVNULL, cwd=os.getcwd())
    log = tmp_path / "log.jsonl"
    while not (log.exists() and log.stat().st_size) and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(kind)
    assert run.wait(60) != 0
    assert (tmp_path / "state.safetensors").exists()


def test_a_changed_recipe_is_refused_by_name(tmp_path):
    x, _ = planted(rows=256 * 8)
    train(Rows(x), BatchTopK(d_in=32, d_sae=48, k=3), TrainConfig(), held_out=x[:256], into=tmp_path)
    with pytest.raises(InterpError, match="a run with k = 3, and 4 was asked"):
        train(Rows(x), BatchTopK(d_in=32, d_sae=48, k=4), TrainConfig(), held_out=x[:256], into=tmp_path)


def test_without_held_out_rows_the_last_ones_are_kept_back():
    x, _ = planted(rows=256 * 20)
    sae = train(Rows(x), BatchTopK(d_in=32, d_sae=48, k=3), TrainConfig())
    assert float((sae.encode(x[-512:]) > 0).sum() / 512) == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: train([], BatchTopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=10)), "gave no rows"),
        (
            lambda: train([torch.zeros(4, 3)], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=4)),
            "3 columns and d_in is 4",
        ),
        (lambda: train([torch.zeros(4)], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=4)), r"shape \(B, d_in\)"),
        (lambda: train(iter([torch.zeros(4, 4)]), TopK(d_in=4, d_sae=8, k=2)), "tokens"),
        (lambda: TopK(d_in=4, d_sae=8, k=9), "k is 9, more than the 8 features"),
        (lambda: TrainConfig(lr=2.0), "lr is 2.0"),
        (
            lambda: train([torch.full((8, 4), float("nan"))], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=8)),
            "not finite at step 1",
        ),
    ],
)
def test_mistakes_are_answered_in_a_sentence(make, message):
    with pytest.raises(InterpError, match=message):
        make()
