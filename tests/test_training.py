"""Training on synthetic activations: no language model is needed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError

from interp import places
from interp.checkpoint import load
from interp.progress import bar
from interp.sae import BatchTopK, Crosscoder, Gated, JumpReLU, Matryoshka, Standard, TopK, Transcoder
from interp.sae.architecture import Moment, unit_rows
from interp.training import TrainConfig, steps, steps_many, tensorboard, train, train_many
from interp.training.optimise import _filled, _part, auxk, optimise
from interp.training.plan import Plan
from interp.training.queue import BatchQueue
from interp.training.state import initial
from interp.training.watch import Pace
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


@pytest.mark.slow
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


def test_an_untrained_sae_recovers_nothing_that_was_planted():
    """A trap: directions planted with one seed and an SAE begun with the same seed could be the same numbers."""
    x, truth = planted()
    state = initial(x[:4096], x[:4096], BatchTopK(d_in=32, d_sae=48, k=3), seed=0)
    assert float((state.p["W_dec"] @ truth.T).max(0).values.max()) < 0.85


def test_the_saved_threshold_gives_the_l0_that_was_asked():
    x, _ = planted()
    sae = train(batches(x, epochs=2), BatchTopK(d_in=32, d_sae=48, k=3), TrainConfig(tokens=60_000), held_out=x[:8192])
    assert sae.rule == "jumprelu"
    assert float((sae.encode(x[:8192]) > 0).sum() / 8192) == pytest.approx(3, rel=0.02)


def test_decoder_rows_have_unit_norm():
    x, _ = planted()
    sae = train(batches(x, epochs=1), TopK(d_in=32, d_sae=48, k=3), TrainConfig(tokens=30_000), held_out=x[:512])
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-3)  # float16 rounding


@pytest.mark.parametrize("rule", [TopK(d_in=32, d_sae=40, k=3), BatchTopK(d_in=32, d_sae=40, k=3)])
def test_auxk_teaches_dead_features_encoder_and_decoder(rule):
    x, _ = planted(rows=64)
    state = initial(x, x, rule, seed=1)
    dead = torch.arange(0, 40, 4)
    state.p["b_enc"][dead] = -0.1
    p = {name: value.clone() for name, value in state.p.items()}
    u = x * state.scale_in - p["b_dec"]
    error = rule.gradients(p, u, u, Moment(0.0, state.hint, torch.float32)).error_BO
    config = TrainConfig(bfloat16=False, aux_k=5, lr=1e-3).resolved(rule, 64)
    got = {name: torch.zeros_like(value) for name, value in p.items()}
    auxk(p, got, dead, u, error, config, torch.float32, centred=True)
    b_dec = p["b_dec"].clone().requires_grad_()
    leaves = {name: p[name][dead].clone().requires_grad_() for name in ("W_enc", "b_enc", "W_dec")}
    pre = (x * state.scale_in - b_dec) @ leaves["W_enc"].T + leaves["b_enc"]
    top = pre.topk(5, dim=1)
    made = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu()) @ leaves["W_dec"]
    (config.aux_alpha * (made + error).square().sum() / 64).backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(got[name][dead], leaf.grad, atol=1e-6, rtol=1e-4)
        assert float(leaf.grad.abs().sum()) > 0
        got[name][dead] = 0
        assert float(got[name].abs().sum()) == 0  # the living get nothing
    torch.testing.assert_close(got["b_dec"], b_dec.grad, atol=1e-6, rtol=1e-4)
    assert float(b_dec.grad.abs().sum()) > 0


def test_dead_features_are_filled_up_to_few_sizes():
    sizes = {}
    for count in range(5_001):
        filled = _filled(torch.arange(count))
        assert filled[:count].equal(torch.arange(count))
        assert not filled[count:].any()
        sizes[count] = len(filled)
    assert len(set(sizes.values())) < 48
    assert all(filled <= max(1.25 * count, count + 7) for count, filled in sizes.items())


@pytest.mark.parametrize("rule", [Gated(d_in=32, d_sae=48), JumpReLU(d_in=32, d_sae=48, l0=3)])
def test_resampling_makes_everything_of_a_dead_feature_anew(rule):
    x, _ = planted()
    config = TrainConfig(tokens=39_936, dead_after=4_096, resample=True, bfloat16=False).resolved(rule, 39_936)
    state = initial(x[:4096], x[:4096], rule, 0)
    closed, value = ("b_mag", -30.0) if "b_mag" in state.p else ("threshold", 30.0)
    state.p[closed][::3] = value
    for i, batch in enumerate(batches(x, epochs=1)):
        measured = optimise(state, rule, config, batch, i / 156)
    assert measured.dead < 4  # of 16; some may have died anew
    assert float(state.p[closed].abs().max()) < 25


def test_the_penalty_on_cosines_has_autograds_gradient():
    torch.manual_seed(0)
    W = (torch.randn(40, 8) * torch.rand(40, 1)).requires_grad_()
    unit = W / W.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).abs().masked_fill(torch.eye(40, dtype=torch.bool), 0.0)
    (3.0 * cosines.max(dim=1).values.square().mean()).backward()
    got = torch.zeros(40, 8)
    _part(W.detach(), got, 3.0, 7, torch.float32, unit=False)
    torch.testing.assert_close(got, W.grad)


def test_features_are_parted_in_turns_that_add_up_to_all(monkeypatch):
    torch.manual_seed(1)
    W = torch.randn(512, 16)
    turns, whole = torch.zeros(512, 16), torch.zeros(512, 16)
    for step in range(2):
        _part(W, turns, 1.0, step, torch.float32, unit=False)
    monkeypatch.setattr("interp.training.optimise.PARTED", 512)
    _part(W, whole, 1.0, 0, torch.float32, unit=False)
    torch.testing.assert_close(turns / 2, whole)


@pytest.mark.slow
def test_the_penalty_on_cosines_parts_siblings():
    """Of children that never come together and always with their parent, latents hold parent + child; less so with it."""
    torch.manual_seed(2)
    parent, *children = torch.linalg.qr(torch.randn(16, 16)).Q[:5]
    which = torch.randint(6, (40_000,))  # neither, the parent alone, or with one of four children
    x = (which > 0)[:, None] * parent + 0.01 * torch.randn(40_000, 16)
    for i, child in enumerate(children):
        x[which == 2 + i] += child
    nearest = []
    for weight in (0.0, 0.3):
        config = TrainConfig(tokens=4 * 39_936, lr=1e-2, orthogonal=weight, bfloat16=False)
        sae = train(batches(x, epochs=4), TopK(d_in=16, d_sae=5, k=2), config, held_out=x[:4096])
        W = torch.nn.functional.normalize(sae.W_dec, dim=1)
        nearest.append(float((W @ W.T - torch.eye(5)).abs().max(dim=1).values.mean()))
    assert nearest[1] < 0.7 * nearest[0]


def test_resampling_works_where_auxk_is_not_wanted():
    x, _ = planted()
    rule = TopK(d_in=32, d_sae=48, k=3)
    config = TrainConfig(tokens=39_936, dead_after=4_096, resample=True, aux_alpha=0, bfloat16=False)
    state = initial(x[:4096], x[:4096], rule, 0)
    state.p["b_enc"][::3] = -30.0
    for i, batch in enumerate(batches(x, epochs=1)):
        measured = optimise(state, rule, config.resolved(rule, 39_936), batch, i / 156)
    assert measured.dead < 4  # of 16; some may have died anew
    zeros = torch.zeros(256, 32)  # nothing is explained badly: nothing to begin anew on
    state.idle_F[:] = 10_000
    for _ in range(16):
        optimise(state, rule, config.resolved(rule, 39_936), zeros, 0.5)


def test_resampling_gives_dead_features_rows_that_are_explained_badly():
    x, truth = planted()
    rule = Standard(d_in=32, d_sae=48, l1=3.0)
    config = TrainConfig(tokens=8 * 39_936, lr=3e-3, dead_after=8_192, resample=True, bfloat16=False)
    state = initial(x[:4096], x[:4096], rule, 0)
    state.p["b_enc"][::3] = -30.0
    state.p["b_enc"][1::3] = -30.0
    config = config.resolved(rule, 8 * 39_936)
    for i, batch in enumerate(batches(x)):
        measured = optimise(state, rule, config, batch, i / 624)
    cosine = (unit_rows(state.p["W_dec"]) @ truth.T).max(0).values
    assert measured.dead < 12
    assert float((cosine > 0.9).float().mean()) > 0.75


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


RULES = [
    BatchTopK(d_in=32, d_sae=48, k=3),
    Matryoshka(d_in=32, d_sae=48, k=3),
    JumpReLU(d_in=32, d_sae=48, l0=3.0),
    Gated(d_in=32, d_sae=48),
    Standard(d_in=32, d_sae=48),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, rule):
    x, _ = planted(rows=256 * 40)
    config = TrainConfig(save_every=256 * 5, dead_after=2_000, resample=True)
    whole = train(Rows(x), rule, config, held_out=x[:2048])
    run = steps(Rows(x), rule, config, held_out=x[:2048], into=tmp_path)
    for step in run:
        if step.step == 17:  # as if killed: only what was saved at step 15 remains
            break
    run.close()
    again = train(Rows(x), rule, config, held_out=x[:2048], into=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("kept_back", [False, True], ids=["held out", "kept back"])
@pytest.mark.parametrize("tokens", [None, 256 * 20], ids=["all", "some"])
@pytest.mark.parametrize("at", [9, 20, 40])
def test_a_run_killed_near_or_after_its_last_step_ends_the_same(tmp_path, kept_back, tokens, at):
    x, _ = planted(rows=256 * 40)
    held_out = None if kept_back else x[:2048]
    config = TrainConfig(tokens=tokens, save_every=256)
    whole = train(Rows(x), RULES[0], config, held_out=held_out)
    run = steps(Rows(x), RULES[0], config, held_out=held_out, into=tmp_path)
    for step in run:
        if step.step == at and step.sae is None:
            break
    run.close()
    again = train(Rows(x), RULES[0], config, held_out=held_out, into=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    once_more = train(Rows(x), RULES[0], config, held_out=held_out, into=tmp_path)
    assert torch.equal(once_more.threshold, whole.threshold)


def test_runs_of_different_lengths_need_held_out_rows():
    x, _ = planted(rows=256 * 20)
    runs = {"a": (RULES[0], TrainConfig()), "b": (RULES[0], TrainConfig(tokens=256 * 5))}
    with pytest.raises(InterpError, match="runs of different lengths have different last rows"):
        train_many(Rows(x), runs)


def test_the_checkpoint_of_an_unfinished_run_opens_on_its_own(tmp_path):
    x, _ = planted(rows=256 * 40)
    run = steps(Rows(x), RULES[0], TrainConfig(save_every=256 * 5), held_out=x[:2048], into=tmp_path)
    for step in run:
        if step.step == 32:
            break
    run.close()
    sae = load(tmp_path / "latest")
    error = (x - sae.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) < 0.9
    assert float((sae.encode(x) > 0).sum() / len(x)) == pytest.approx(3, rel=0.1)


def test_several_saes_from_one_pass_equal_each_alone(tmp_path):
    x, _ = planted(rows=256 * 30)
    runs = {
        "a": (BatchTopK(d_in=32, d_sae=48, k=3), TrainConfig(seed=1)),
        "b": (TopK(d_in=32, d_sae=40, k=5), TrainConfig(lr=5e-3, tokens=256 * 12)),
        "c": (Standard(d_in=32, d_sae=48), TrainConfig(save_every=256 * 7)),
    }
    together = train_many(Rows(x), runs, held_out=x[:2048], into=tmp_path)
    for name, (rule, config) in runs.items():
        alone = train(Rows(x), rule, config, held_out=x[:2048])
        for key, value in alone.state_dict().items():
            assert torch.equal(together[name].state_dict()[key], value), (name, key)


def test_several_saes_killed_at_different_steps_go_on_together(tmp_path):
    x, _ = planted(rows=256 * 30)
    runs = {
        "a": (RULES[0], TrainConfig(save_every=256 * 4)),
        "b": (RULES[0], TrainConfig(seed=7, save_every=256 * 9)),
    }
    whole = train_many(Rows(x), runs, held_out=x[:2048])
    run = steps_many(Rows(x), runs, held_out=x[:2048], into=tmp_path)
    for step in run:
        if step.step == 15:  # a was saved at 12, b at 9
            break
    run.close()
    again = train_many(Rows(x), runs, held_out=x[:2048], into=tmp_path)
    for name in runs:
        assert torch.equal(again[name].W_enc, whole[name].W_enc)


def test_a_transcoder_learns_a_map_between_two_places():
    x, _ = planted(rows=256 * 120)
    y = x.relu() @ torch.randn(32, 12, generator=torch.Generator().manual_seed(1))

    class Pairs(Rows):
        def from_batch(self, first):
            return ((rows, other) for rows, other in zip(self.x.split(256)[first:], y.split(256)[first:], strict=True))

    fvu = {}
    for skip in (False, True):
        rule = Transcoder(d_in=32, d_out=12, d_sae=64, k=3, skip=skip)
        *_, last = steps(Pairs(x), rule, TrainConfig(lr=5e-3), held_out=(x[:2048], y[:2048]))
        fvu[skip] = last.fvu
    assert fvu[False] < 0.4
    assert fvu[True] < fvu[False]


SCRIPT = """
import sys, torch
from tests.test_training import Rows, planted
from interp.sae import BatchTopK
from interp.training import TrainConfig, train
x, _ = planted(rows=256 * 4000)
torch.set_num_threads(1)
train(Rows(x), BatchTopK(d_in=32, d_sae=48, k=3), TrainConfig(save_every=10**9), held_out=x[:256], into=sys.argv[1])
"""


KILLED = """
import sys, torch
from tests.test_training import RULES, Rows, planted
from interp.training import TrainConfig, train
torch.set_num_threads(1)
x, _ = planted(rows=256 * 300)
sae = train(Rows(x), RULES[0], TrainConfig(save_every=256 * 7), held_out=x[:2048], into=sys.argv[1])
torch.save(sae.state_dict(), sys.argv[1] + "/done.pt")
"""


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path):
    def start(folder):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stderr=subprocess.DEVNULL, cwd=os.getcwd())

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    assert start(whole).wait(120) == 0
    kills = 0
    for _ in range(3):
        run, state = start(broken), broken / "state.safetensors"
        before = state.stat().st_mtime_ns if state.exists() else 0
        while run.poll() is None and not (state.exists() and state.stat().st_mtime_ns != before):
            time.sleep(0.002)
        time.sleep(0.05 * kills)
        kills += run.poll() is None
        run.kill()
        run.wait()
        if (broken / "done.pt").exists():
            break
        if (broken / "latest").exists():  # not yet, when the kill fell before the first was whole
            assert load(broken / "latest").d_sae == 48
    assert kills
    assert start(broken).wait(120) == 0
    a, b = (torch.load(folder / "done.pt", weights_only=True) for folder in (whole, broken))
    for name, value in a.items():
        assert torch.equal(b[name], value), name


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


def test_the_learning_rate_falls_to_the_end_whether_rows_are_kept_back_or_fewer_are_there_than_asked():
    x, _ = planted(rows=256 * 60)
    for tokens, held_out, trained in ((None, None, 54), (10**6, None, 54), (10**6, x[:2048], 60)):
        *rest, last = steps(Rows(x), RULES[0], TrainConfig(tokens=tokens, decay=0.2), held_out=held_out)
        assert last.tokens == 256 * trained
        assert rest[-1].lr < 0.11 * max(step.lr for step in rest)
        assert any(f"trains on {256 * trained:,} of the 1,000,000" in n for n in rest[0].notes) == (tokens is not None)


def test_batches_that_end_before_the_learning_rate_fell_are_said():
    x, _ = planted(rows=256 * 20)
    notes = notes_of(list(Rows(x)), RULES[0], TrainConfig(tokens=256 * 40), held_out=x[:1024])
    assert any("the batches ended after 5,120 of 10,240 tokens" in note for note in notes)


def test_a_run_that_was_saved_with_another_reckoning_of_its_length_goes_on(tmp_path, monkeypatch):
    x, _ = planted(rows=256 * 20)
    config = TrainConfig(save_every=256 * 5)
    with monkeypatch.context() as before:
        before.setattr(Plan, "of", staticmethod(lambda *_, **__: Plan(len(x), 512, len(x))))
        run = steps(Rows(x), RULES[0], config, into=tmp_path)
        next(step for step in run if step.step == 7)
        run.close()
    *_, last = steps(Rows(x), RULES[0], config, into=tmp_path)
    assert last.tokens == len(x) - 512


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_run_of_few_batches_keeps_rows_back_for_its_threshold(count):
    x, _ = planted(rows=256 * count)
    *_, last = steps(Rows(x), RULES[0], TrainConfig())
    assert last.step == count - 1
    assert last.l0 > 0


@pytest.mark.parametrize("batches", [Rows(torch.rand(256, 32)), list(torch.rand(1, 256, 32))], ids=["sized", "unsized"])
def test_a_run_with_nothing_left_to_train_on_says_so(batches):
    with pytest.raises(InterpError, match="hold 256 rows, and 25 are kept back .* give held_out rows"):
        train(batches, RULES[0], TrainConfig(tokens=256))


def test_a_text_of_less_than_a_batch_says_so():
    with pytest.raises(InterpError, match="too few rows for a single batch; give a smaller batch"):
        train(Rows(torch.rand(0, 32)), RULES[0], TrainConfig(), held_out=torch.rand(64, 32))


def test_small_batches_are_counted_once():
    queue = BatchQueue([torch.zeros(1, 2)] * 4000, 0, 2000)
    began = time.perf_counter()
    assert len(list(queue)) == 2000
    assert time.perf_counter() - began < 0.5  # counting the whole queue at each draw took seconds


def notes_of(batches, rule, config, **options):
    return [note for step in steps(batches, rule, config, **options) for note in step.notes]


def test_a_run_says_what_it_takes_and_that_nothing_is_wrong():
    x, _ = planted(rows=256 * 60)
    notes = notes_of(Rows(x), RULES[0], TrainConfig(dead_after=10**6), held_out=x[:4096])
    assert len(notes) == 1
    assert re.match(r"expects [\d.]+ .iB of memory, [\d.]+ .iB of disk and (under a second|.* s|.* min)$", notes[0])


def test_a_run_warns_of_massive_rows_of_unmixed_batches_and_of_dead_features():
    x, _ = planted(rows=256 * 60)
    massive = x.clone()
    massive[5] *= 100
    assert any(
        "1 of 256 rows of a batch has a norm over 6" in n for n in notes_of(Rows(massive), RULES[0], TrainConfig())
    )
    drifting = x + torch.arange(60).repeat_interleave(256)[:, None] * 0.5
    assert any("shuffle buffer is too small" in n for n in notes_of(Rows(drifting), RULES[0], TrainConfig()))
    wide = BatchTopK(d_in=32, d_sae=2048, k=3)
    notes = notes_of(Rows(x), wide, TrainConfig(dead_after=1024, aux_alpha=0.0))
    assert any("of the features are dead" in n for n in notes)


@pytest.mark.parametrize("buffer", [10, 30])
def test_shuffle_buffers_that_differ_from_each_other_are_said(buffer):
    x, _ = planted(rows=256 * 120)
    drifting = x + torch.arange(120 // buffer).repeat_interleave(256 * buffer)[:, None] * 20
    config = TrainConfig(dead_after=10**6)
    assert any("shuffle buffer is too small" in n for n in notes_of(Rows(drifting), RULES[0], config, held_out=x[:999]))


def test_batches_of_one_row_are_not_called_unmixed():
    x, _ = planted(rows=40)
    notes = notes_of(x.split(1), RULES[0], TrainConfig(tokens=40), held_out=x)
    assert not any("shuffle buffer" in note for note in notes)


def test_massive_rows_are_seen_in_any_batch_and_at_any_hook_point():
    x, _ = planted(rows=256 * 60)
    late = x.clone()
    late[256 * 37] *= 100
    notes = notes_of(Rows(late), RULES[0], TrainConfig(dead_after=10**6), held_out=x[:999])
    assert any("1 of 256 rows of a batch has a norm over 6" in note for note in notes)
    small = x.clone()
    small[5] *= 100
    pairs = list(zip((x * 1000).split(256), small.split(256), strict=True))
    rules = [Transcoder(d_in=32, d_out=32, d_sae=48, k=3), Crosscoder(widths=(32, 32), d_sae=48, k=3)]
    for rule in rules:
        notes = notes_of(pairs, rule, TrainConfig(tokens=len(x)), held_out=(x[:999] * 1000, x[:999]))
        assert any("1 of 256 rows of a batch (tensor 2 of 2) has a norm over 6" in note for note in notes)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (TopK(d_in=32, d_sae=48, k=40), "and 40 were asked; lower k"),
        (JumpReLU(d_in=32, d_sae=512, l0=3.0, coefficient=1e-6), "and 3 were asked; raise coefficient"),
        (Matryoshka(d_in=32, d_sae=48, k=3, anneal=0.5), None),
        (JumpReLU(d_in=32, d_sae=48, l0=3.0), None),
    ],
    ids=["topk", "jumprelu", "annealed", "followed"],
)
def test_an_l0_away_from_what_was_asked_is_said_while_training(rule, said):
    x, _ = planted(rows=256 * 120)
    run = list(steps(Rows(x), rule, TrainConfig(dead_after=10**6), held_out=x[:1024]))
    notes = [note for step in run[:-1] for note in step.notes if "active a row" in note]
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]


def test_an_l0_away_from_k_is_said():
    x, _ = planted(rows=256 * 20)
    notes = notes_of(Rows(x), TopK(d_in=32, d_sae=48, k=40), TrainConfig(), held_out=x[:1024])
    assert any("features are active a row, and 40 were asked" in note for note in notes)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path):
    x, _ = planted(rows=256 * 20)
    x[256 * 8 + 3] = float("nan")
    with pytest.raises(InterpError, match=r"not finite at step 9 \(batch 8, counted from 0\)"):
        train(Rows(x), RULES[0], TrainConfig(), held_out=x[:1024], into=tmp_path)
    assert bool(load(tmp_path / "latest").W_dec.isfinite().all())


def test_a_transcoders_input_that_is_not_finite_is_not_passed_over():
    x, _ = planted(rows=512)
    rule = Transcoder(d_in=32, d_out=32, d_sae=48, k=3)
    state = initial(x, x, rule, 0)
    broken = x.clone()
    broken[3] = -float("nan")
    with pytest.raises(InterpError, match="not finite"):
        optimise(state, rule, TrainConfig(tokens=512).resolved(rule, 512), (broken, x), 0.5)


def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    x, _ = planted(rows=256 * 20)
    config = TrainConfig(save_every=256 * 5)
    run = steps(Rows(x), RULES[0], config, held_out=x[:1024], into=tmp_path)
    for step in run:
        if step.step == 7:
            break
    run.close()
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("interp.sae.shards.save_file", full)
    with pytest.raises(InterpError, match="the disk is full"):
        train(Rows(x), RULES[0], config, held_out=x[:1024], into=tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
    monkeypatch.undo()
    again = train(Rows(x), RULES[0], config, held_out=x[:1024], into=tmp_path)
    assert torch.equal(again.W_enc, train(Rows(x), RULES[0], config, held_out=x[:1024]).W_enc)


def stopped_at(batches, rule, config, step, **options):
    """A run as if killed there: only what was saved remains."""
    run = steps(batches, rule, config, **options)
    next(event for event in run if event.step == step)
    run.close()


def test_rows_that_are_not_finite_are_said_before_training_or_left_out_of_those_kept_back():
    x, _ = planted(rows=256 * 20)
    broken = x.clone()
    broken[-5:] = float("nan")
    with pytest.raises(InterpError, match="5 of 256 held-out rows hold a NaN"):
        next(steps(Rows(x), RULES[0], TrainConfig(), held_out=broken[-256:]))
    *_, last = steps(Rows(broken), RULES[0], TrainConfig())
    assert "5 of the 512 rows kept back are not finite" in last.notes[0]
    assert float(last.sae.threshold.max()) > 0


def test_a_log_holds_each_step_once_however_often_the_run_was_killed(tmp_path):
    x, _ = planted(rows=256 * 60)
    config, log = TrainConfig(save_every=256 * 20, dead_after=10**6), tmp_path / "log.jsonl"

    def stop(step):
        if step.step == 55:
            raise KeyboardInterrupt

    def run(*more):
        board = tensorboard(tmp_path / "tb")
        train(Rows(x), RULES[0], config, held_out=x[:1024], into=tmp_path, listeners=[board, *more])

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    with log.open("a") as file:
        file.write('{"step": 5')  # cut short
    run()
    run()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [(line["step"], line["finished"]) for line in lines if not line["notes"]]
    assert steps == [*((step, False) for step in range(10, 61, 10)), (60, True)]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tb"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/fvu")] == [256 * step for step in range(1, 61)]


def test_progress_counts_only_what_this_run_did(monkeypatch, capsys):
    clock = iter(range(1000))
    monkeypatch.setattr("interp.progress.time.perf_counter", lambda: float(next(clock)))
    with bar("train", 100, done=90) as advance:
        advance(10)
    assert (
        re.search(r"100 of 100 tokens, (\d)\.\d tokens/s", capsys.readouterr().err)[1] in "35"
    )  # 10 in 2 to 3 seconds


def test_the_last_event_is_the_same_however_late_the_run_was_killed(tmp_path):
    x, _ = planted(rows=256 * 40)
    rule, config = BatchTopK(d_in=32, d_sae=512, k=3), TrainConfig(save_every=256, aux_alpha=0.0, dead_after=2000)
    *_, whole = steps(Rows(x), rule, config, held_out=x[:2048])
    assert whole.dead == int(((whole.sae.encode(x[1024:2048]) > 0).sum(0) == 0).sum()) > 0
    for at in (20, 40):
        stopped_at(Rows(x), rule, config, at, held_out=x[:2048], into=tmp_path / str(at))
        *_, last = steps(Rows(x), rule, config, held_out=x[:2048], into=tmp_path / str(at))
        assert replace(last, seconds=0, sae=None, notes=()) == replace(whole, seconds=0, sae=None, notes=())


def test_the_last_measures_are_of_rows_that_the_threshold_has_not_seen():
    x, _ = planted(rows=256 * 20)
    half = torch.cat([x[:512], x[:512] * 3 - 6])  # more is active in the second half than in the first
    *_, last = steps(Rows(x), RULES[0], TrainConfig(), held_out=half)
    assert last.l0 == pytest.approx(float((last.sae.encode(half[512:]) > 0).sum() / 512), rel=1e-3)
    assert float((last.sae.encode(half[:512]) > 0).sum() / 512) == pytest.approx(3, rel=0.02)
    assert "were asked" in last.notes[0]


def test_a_listener_that_fails_loses_nothing(tmp_path):
    x, _ = planted(rows=256 * 20)
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(InterpError, match="the disk is full while writing .*log.jsonl"):
        train(Rows(x), RULES[0], TrainConfig(), held_out=x[:256], into=tmp_path)
    assert (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize(("number", "said"), [(28, "the disk is full"), (27, "cannot use .*File too large")])
def test_what_stops_a_file_from_being_written_is_said_as_it_is(tmp_path, number, said):
    def refused(partial):
        raise SafetensorError(f"Error while serializing: I/O error: words (os error {number})")

    with pytest.raises(InterpError, match=said), places.whole_file(tmp_path / "x") as partial:
        refused(partial)


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path):
    x, _ = planted(rows=256 * 20)
    (tmp_path / "latest").mkdir()
    left = [tmp_path / ".state.safetensors.1.partial", tmp_path / "latest" / ".cfg.json.1.partial"]
    for path in left:
        path.write_text("half")
    train(Rows(x), RULES[0], TrainConfig(), held_out=x[:256], into=tmp_path)
    assert not any(path.exists() for path in left)
    assert load(tmp_path / "latest").d_sae == 48


def test_a_run_begun_anew_leaves_nothing_of_the_old_one(tmp_path):
    x, _ = planted(rows=256 * 20)
    train(Rows(x), RULES[0], TrainConfig(), held_out=x[:256], into=tmp_path)
    run = steps(Rows(x), TopK(d_in=32, d_sae=40, k=3), TrainConfig(), held_out=x[:256], into=tmp_path, restart=True)
    next(run)
    run.close()
    assert not (tmp_path / "latest").exists()


def test_a_first_checkpoint_appears_whole(tmp_path, monkeypatch):
    x, _ = planted(rows=256 * 20)
    monkeypatch.setattr("interp.places.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # as if killed
    with pytest.raises(KeyboardInterrupt):
        train(Rows(x), RULES[0], TrainConfig(), held_out=x[:256], into=tmp_path)
    assert (tmp_path / "state.safetensors").exists()
    assert not (tmp_path / "latest").exists()


class Pairs(Rows):
    """Two columns: the rows, and the same with one that is not finite from some batch on."""

    def __init__(self, x, broken):
        super().__init__(x)
        self.y = x.clone()
        self.y[256 * broken :] = float("nan")

    def from_batch(self, first):
        return zip(self.x.split(256)[first:], self.y.split(256)[first:], strict=True)


def test_a_run_that_fails_is_named_and_the_others_are_saved(tmp_path):
    x, _ = planted(rows=256 * 20)
    runs = {"good": (RULES[0], TrainConfig()), "bad": (RULES[0], TrainConfig())}
    with pytest.raises(InterpError, match="bad: the loss is not finite at step 9"):
        train_many(Pairs(x, 8), runs, held_out=(x[:256], x[:256]), into=tmp_path, columns={"good": 0, "bad": 1})
    assert all((tmp_path / name / "state.safetensors").exists() for name in runs)


def test_a_run_that_is_over_does_not_end_the_others_when_they_go_on(tmp_path):
    x, _ = planted(rows=256 * 30)
    runs = {"short": (RULES[0], TrainConfig(tokens=256 * 6)), "long": (RULES[0], TrainConfig(save_every=256 * 10))}
    whole = train_many(Rows(x), runs, held_out=x[:2048])
    run = steps_many(Rows(x), runs, held_out=x[:2048], into=tmp_path)
    next(event for event in run if event.step == 12)
    run.close()
    train(Rows(x), *runs["short"], held_out=x[:2048], into=tmp_path / "short")
    again = train_many(Rows(x), runs, held_out=x[:2048], into=tmp_path)
    assert torch.equal(again["long"].W_enc, whole["long"].W_enc)


@pytest.mark.parametrize("scale", [1e-6, 3e4])
def test_activations_of_any_size_are_trained_on_and_saved(tmp_path, scale):
    x, _ = planted(rows=256 * 40)
    sizes = {"held_out": x[:2048] * scale, "into": tmp_path}
    *_, last = steps(Rows(x * scale), RULES[0], TrainConfig(), **sizes)
    assert last.fvu < 0.9
    assert last.l0 == pytest.approx(3, rel=0.05)
    from sae_lens import SAE as Theirs

    rows = x[:99] * scale
    with torch.no_grad():
        theirs = Theirs.load_from_disk(str(tmp_path / "latest"))(rows)
    torch.testing.assert_close(theirs, load(tmp_path / "latest").reconstruct(rows), rtol=1e-4, atol=1e-4 * scale)


def test_a_signal_reaches_who_holds_the_iterator_between_steps():
    x, _ = planted(rows=256 * 20)
    run = steps(Rows(x), RULES[0], TrainConfig(), held_out=x[:256])
    next(run)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert next(run).step == 2


def test_a_signal_before_the_first_step_is_not_held_up():
    drawn = []

    def slow():
        for _ in range(20):
            drawn.append(1)
            signal.raise_signal(signal.SIGINT)
            yield torch.rand(256, 32)

    with pytest.raises(KeyboardInterrupt):
        train(slow(), RULES[0], TrainConfig(tokens=256 * 20), held_out=torch.rand(256, 32))
    assert len(drawn) == 1


def test_a_run_that_goes_on_with_other_batches_or_threads_says_so(tmp_path):
    x, _ = planted(rows=256 * 20)
    config = TrainConfig(tokens=256 * 20, save_every=256)
    stopped_at(list(x.split(256)), RULES[0], config, 7, held_out=x[:256], into=tmp_path)
    with pytest.raises(
        InterpError, match="the first 7 batches hold 3,584 rows, and held 1,792 when this run was saved"
    ):
        train(x.split(512), RULES[0], config, held_out=x[:256], into=tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        notes = notes_of(x.split(256), RULES[0], config, held_out=x[:256], into=tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert f"saved on {threads} threads and goes on on {threads + 1}" in notes[0]


def test_empty_batches_are_passed_over(tmp_path):
    x, _ = planted(rows=256 * 20)
    config = TrainConfig(tokens=256 * 20, save_every=256)
    parts = [part for rows in x.split(256) for part in (rows[:0], rows)]
    whole = train(parts, RULES[0], config, held_out=x[:256])
    assert torch.equal(whole.W_enc, train(x.split(256), RULES[0], config, held_out=x[:256]).W_enc)
    stopped_at(parts, RULES[0], config, 7, held_out=x[:256], into=tmp_path)
    assert torch.equal(whole.W_enc, train(parts, RULES[0], config, held_out=x[:256], into=tmp_path).W_enc)


def test_a_column_that_ends_before_its_tokens_are_reached_says_so():
    x, _ = planted(rows=256 * 20)
    pairs = [(a, a if i < 10 else None) for i, a in enumerate(x.split(256))]
    runs = {name: (RULES[0], TrainConfig(tokens=256 * 20)) for name in "ab"}
    events = steps_many(pairs, runs, held_out=(x[:256], x[:256]), columns={"a": 0, "b": 1})
    last = {event.run: event for event in events if event.sae is not None}
    assert (last["a"].step, last["b"].step) == (20, 10)
    assert "the batches ended after 2,560 of 5,120 tokens" in last["b"].notes[-1]


MEMORY = """
import re, threading, time, psutil, torch
from interp.sae import BatchTopK
from interp.training import TrainConfig, steps

def resident():
    return psutil.Process().memory_info().rss / 2**30

def watch():
    while True:
        seen.append(resident())
        time.sleep(0.002)

class Made:
    batch_size = 1024
    def __len__(self):
        return 200
    def from_batch(self, first):
        return (torch.randn(1024, 256) for _ in range(first, 200))
    __iter__ = None

list(steps([torch.randn(64, 8)] * 4, BatchTopK(d_in=8, d_sae=16, k=2), TrainConfig(tokens=192), held_out=torch.randn(64, 8)))
before, seen, said = resident(), [], None
threading.Thread(target=watch, daemon=True).start()
for step in steps(Made(), BatchTopK(d_in=256, d_sae=256, k=8), TrainConfig(dead_after=10**7)):
    if said is None:
        amount, unit = re.match("expects ([0-9.]+) ([MG]iB)", step.notes[0]).groups()
        said = float(amount) / {"GiB": 1, "MiB": 1024}[unit]
print(said / (max(seen) - before))
"""


def test_the_memory_said_beforehand_is_what_is_taken():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1.0, abs=0.3)


class Slow(Rows):
    def from_batch(self, first):
        for rows in super().from_batch(first):
            time.sleep(0.01)
            yield rows


def test_the_time_said_beforehand_is_of_all_runs_and_of_the_batches_too(monkeypatch):
    said = []
    monkeypatch.setattr(
        "interp.training.watch.expects", lambda runs, more, minutes: said.append((len(runs), minutes * 60)) or "expects"
    )
    monkeypatch.setattr("interp.training.watch.seconds_a_step", lambda *_: 0.5)
    x, _ = planted(rows=256 * 100)
    runs = {name: (RULES[0], TrainConfig(dead_after=10**6)) for name in "abc"}
    events = steps_many(Slow(x), runs, held_out=x[:256])
    assert sum(note == "expects" for event in events for note in event.notes) == 1
    assert said[0][0] == 3
    assert said[0][1] == pytest.approx(3 * 100 * 0.5 + (100 - 64) * 0.01, abs=0.3)  # 64 batches were drawn before


def test_a_pace_other_than_was_said_is_said_once(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("interp.training.watch.time.perf_counter", lambda: 2.0 * next(clock) * 60)
    pace = Pace(batches=120, seconds=60.0, drawn=10, fill=None)
    notes = [pace.look() for _ in range(120)]
    assert [i + 1 for i, note in enumerate(notes) if note] == [60]
    # 2 minutes for the 50 batches looked at, 60 are left
    assert notes[59] == ["expects 2.4 min from here; by what was said before it would be 30 s."]


def test_a_disk_too_small_for_all_runs_is_refused_however_short_they_are(tmp_path, monkeypatch):
    x, _ = planted(rows=256 * 20)
    runs = {name: (RULES[0], TrainConfig()) for name in "abcd"}
    one = 4 * (2 * 32 * 48 + 48 + 32) * 3.5
    for free, fits in ((4.5 * one, False), (5.1 * one, True)):
        monkeypatch.setattr("interp.places.free_bytes", lambda path, free=free: int(free))
        if fits:
            train_many(Rows(x), runs, held_out=x[:256], into=tmp_path)
        else:
            with pytest.raises(InterpError, match="more while it writes"):
                train_many(Rows(x), runs, held_out=x[:256], into=tmp_path)


def test_a_disk_too_small_is_refused_before_the_first_step(tmp_path, monkeypatch):
    x, _ = planted(rows=256 * 60)
    monkeypatch.setattr("interp.places.free_bytes", lambda path: 1000)
    with pytest.raises(InterpError, match="the run saves .*, and the disk has .* free; choose another folder"):
        train(Rows(x), RULES[0], TrainConfig(), held_out=x[:256], into=tmp_path)


def test_listeners_hear_every_step_and_logs_are_written(tmp_path):
    x, _ = planted(rows=256 * 60)
    heard = []
    ears = [heard.append, tensorboard(tmp_path / "tb")]
    config = TrainConfig(dead_after=10**6)
    train(Rows(x), RULES[0], config, held_out=x[:1024], into=tmp_path / "run", listeners=ears)
    assert [step.step for step in heard] == [*range(1, 61), 60]
    assert heard[-1].sae is not None
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 10, 20, 30, 40, 50, 60, 60]
    assert lines[-1]["finished"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tb"))
    board.Reload()
    assert len(board.Scalars("train/fvu")) == 61


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: train([], BatchTopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=10)), "gave no rows"),
        (
            lambda: train([torch.zeros(4, 3)], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=4)),
            "have 3 columns and TopK was made for 4",
        ),
        (lambda: train([torch.zeros(4)], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=4)), r"shape \(B, d_in\)"),
        (lambda: train(iter([torch.zeros(4, 4)]), TopK(d_in=4, d_sae=8, k=2)), "tokens"),
        (
            lambda: train([torch.zeros(4, 4)], Transcoder(d_in=4, d_out=4, d_sae=8, k=2), TrainConfig(tokens=4)),
            "Transcoder reads batches of 2 tensors; this one has 1",
        ),
        (lambda: train_many([], {}), "there is nothing to train"),
        (
            lambda: train([torch.full((8, 4), 3.7)], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=8)),
            "all of the first 8 rows are the same",
        ),
        (
            lambda: train(
                [torch.rand(8, 4)] * 2, TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=9), held_out=torch.zeros(0, 4)
            ),
            "held_out has no rows",
        ),
        (lambda: TrainConfig(aux_k=-1), "aux_k is -1"),
        (lambda: TrainConfig(aux_alpha=float("nan")), "aux_alpha is nan"),
        (lambda: TrainConfig(tokens=0), "tokens is 0"),
        (lambda: TrainConfig(lr=2.0), "lr is 2.0"),
        (
            lambda: train([torch.full((8, 4), float("nan"))], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=8)),
            "every one of the first rows holds a NaN",
        ),
    ],
)
def test_mistakes_are_answered_in_a_sentence(make, message):
    with pytest.raises(InterpError, match=message):
        make()


def test_a_state_is_saved_as_time_passes_too(tmp_path, monkeypatch):
    x, _ = planted()
    monkeypatch.setattr("interp.training.run.SAVE_SECONDS", 0.0)
    next(iter(steps(Rows(x), RULES[0], TrainConfig(save_every=10**9), held_out=x[:256], into=tmp_path)))
    assert (tmp_path / "state.safetensors").exists()


def test_transcoders_take_half_an_saes_rate_unless_told():
    sae, made = TopK(d_in=32, d_sae=48, k=3), Transcoder(d_in=32, d_out=32, d_sae=48, k=3)
    one, other = TrainConfig().resolved(sae, 10**8).lr, TrainConfig().resolved(made, 10**8).lr
    assert other == pytest.approx(one / 2)
    assert TrainConfig(lr=1e-4).resolved(made, 10**8).lr == 1e-4
