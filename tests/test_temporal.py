"""Temporal contrast: pairs of positions from a store or a stream, through training, to a checkpoint."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from interp.activations import stream
from interp.checkpoint import Card, load
from interp.corpus import open_corpus
from interp.recipe import train_checkpoint, train_sweep
from interp.sae import BatchTopK, Matryoshka
from interp.training import TrainConfig, steps, train
from interp.types import InterpError
from tests.conftest import HOOK
from tests.test_training import Rows, planted

RULES = [
    BatchTopK(d_in=32, d_sae=48, k=3, temporal=0.05),
    Matryoshka(d_in=32, d_sae=48, k=3, prefixes=(12, 48), temporal=0.05),
]
SIZES = {"d_sae": 32, "k": 4, "temporal": 0.02}


class Pairs(Rows):
    """Batches whose rows 2i and 2i + 1 belong together."""

    pairs = "neighbours"


def in_two_halves(count, seed=0):
    """Rows of which those of a pair share one of 8 topics, and have 2 of 16 further directions of their own."""
    torch.manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.randn(24, 32), dim=1)
    code = torch.zeros(count, 24)
    topic = torch.randint(8, (count // 2,)).repeat_interleave(2)
    code[torch.arange(count), topic] = 1 + torch.rand(count // 2).repeat_interleave(2)
    code.scatter_(1, 8 + torch.rand(count, 16).topk(2, dim=1).indices, 1 + torch.rand(count, 2))
    return code @ truth * 7 + 3, truth


def persistence(sae, x, features):
    """How often a feature that fires on a pair's first row fires on its second."""
    fires = sae.encode(x)[:, :features] > 0
    first, second = fires[0::2], fires[1::2]
    return float((first & second).sum()) / float(first.sum())


def test_the_high_level_features_are_those_that_last():
    x, truth = in_two_halves(256 * 80)
    found = {}
    for weight in (0.0, 0.3):
        rule = Matryoshka(d_in=32, d_sae=48, k=3, prefixes=(8, 48), anneal=0.0, temporal=weight)
        sae = train(Pairs(x), rule, TrainConfig(lr=1e-2, bfloat16=False), held_out=x[:2048])
        cosine = torch.nn.functional.normalize(sae.W_dec[:8], dim=1) @ truth.T
        found[weight] = persistence(sae, x[-4096:], 8), int((cosine.max(1).indices < 8).sum())
    assert found[0.3][0] > found[0.0][0] + 0.2
    assert found[0.3][1] > found[0.0][1]  # of the eight features so many are topics


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, rule):
    x, _ = in_two_halves(256 * 40)
    config = TrainConfig(save_every=256 * 5, dead_after=2_000)
    whole = train(Pairs(x), rule, config, held_out=x[:2048])
    run = steps(Pairs(x), rule, config, held_out=x[:2048], into=tmp_path)
    for step in run:
        if step.step == 17:
            break
    run.close()
    again = train(Pairs(x), rule, config, held_out=x[:2048], into=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


KILLED = """
import sys, torch
from interp.activations import ActivationStore
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
torch.set_num_threads(1)
store, into, hook = ActivationStore.open(sys.argv[1]), sys.argv[2], sys.argv[3]
config = TrainConfig(save_every=256 * 7)
train_checkpoint(store, hook, into, "matryoshka", d_sae=32, k=4, temporal=0.02, epochs=20, batch=256, config=config)
"""


def test_training_on_pairs_killed_again_and_again_ends_with_the_same_weights(store, tmp_path):
    def start(folder):
        command = [sys.executable, "-c", KILLED, str(store.folder), str(folder / "sae"), HOOK]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=os.getcwd())

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole).wait(120) == 0
    kills = 0
    for _ in range(3):
        run, state = start(broken), broken / "sae/.run/state.safetensors"
        before = state.stat().st_mtime_ns if state.exists() else 0
        while run.poll() is None and not (state.exists() and state.stat().st_mtime_ns != before):
            time.sleep(0.002)
        kills += run.poll() is None
        run.kill()
        run.wait()
    assert kills
    assert start(broken).wait(120) == 0
    a, b = (load(folder / "sae").state_dict() for folder in (whole, broken))
    for name, value in a.items():
        assert torch.equal(b[name], value), name


@pytest.mark.parametrize("pairs", ["neighbours", "document"])
def test_a_stream_makes_pairs_too(tiny, text_folder, pairs):
    source = stream(tiny, open_corpus(text_folder), HOOK, 8_192)
    batches = source.batches(HOOK, 128, buffer=1024, seed=3, pairs=pairs)
    whole = list(batches)
    assert len(whole) == len(batches) > 30
    for first in (0, 7, len(whole) - 1):
        rest = list(batches.from_batch(first))
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[first:], strict=True))
    # Two positions of one document differ less than those of two documents.
    x = torch.cat(whole)
    earlier, later = x[0::2], x[1::2]
    assert float((earlier - later).norm(dim=1).mean()) < float((earlier - later.roll(64, 0)).norm(dim=1).mean())
    real_N, document_N = source.blocks.real_NT().reshape(-1), source.blocks.document_NT.reshape(-1)
    rows = source.pieces(HOOK)
    where = {}
    for first, _, read in rows:
        for p, row in enumerate(read().float().tolist(), first):
            where.setdefault(tuple(round(v, 3) for v in row), []).append(p)
    seen = [[where.get(tuple(round(v, 3) for v in row), []) for row in pair] for pair in x.view(-1, 2, 16).tolist()]
    sure = [(a[0], b[0]) for a, b in seen if len(a) == len(b) == 1]
    assert len(sure) > 0.5 * len(seen)
    for a, b in sure:
        assert a < b
        assert (bool(real_N[a]), bool(real_N[b])) == (True, True)
        assert (int(document_N[a]), a // 256) == (int(document_N[b]), b // 256)
        assert pairs == "document" or b == a + 1


def test_the_card_says_how_rows_were_paired_and_another_run_is_not_taken_for_it(store, tmp_path):
    def make(**changed):
        return train_checkpoint(store, HOOK, tmp_path / "one", batch=256, **{**SIZES, **changed})

    make()
    recipe = Card.read(tmp_path / "one").recipe
    assert (recipe["pairs"], recipe["architecture"]["temporal"]) == ("neighbours", 0.02)
    make()  # which is there
    with pytest.raises(InterpError, match=r"temporal = 0\.02, and 0\.0 was asked"):
        make(temporal=0.0)
    with pytest.raises(InterpError, match="pairs = 'neighbours', and 'document' was asked"):
        make(pairs="document")


def test_a_card_from_before_there_was_a_contrast_says_that_there_was_none(store, tmp_path):
    train_checkpoint(store, HOOK, tmp_path / "one", batch=256, **SIZES | {"temporal": 0.0})
    file = tmp_path / "one/card.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    del card["recipe"]["pairs"], card["recipe"]["architecture"]["temporal"], card["recipe"]["architecture"]["high"]
    file.write_text(json.dumps(card), encoding="utf-8")
    train_checkpoint(store, HOOK, tmp_path / "one", batch=256, **SIZES | {"temporal": 0.0})
    with pytest.raises(InterpError, match=r"temporal = 0\.0, and 0\.02 was asked"):
        train_checkpoint(store, HOOK, tmp_path / "one", batch=256, **SIZES)


def test_a_sweep_with_and_without_contrast_reads_the_same_pairs(store, tmp_path):
    grid = {"d_sae": [32], "k": [4], "temporal": [0.0, 0.02]}
    train_sweep(store, [HOOK], tmp_path, grid, batch=256)
    for weight in grid["temporal"]:
        alone = train_checkpoint(
            store, HOOK, tmp_path / f"alone{weight}", batch=256, **SIZES | {"temporal": weight, "pairs": "neighbours"}
        )
        swept = load(tmp_path / f"batchtopk-{HOOK}-d_sae32-k4-temporal{weight}")
        for key, value in alone.state_dict().items():
            assert torch.equal(swept.state_dict()[key], value), key


def test_batches_that_are_no_pairs_are_refused(tmp_path):
    x, _ = planted(rows=256 * 4)
    with pytest.raises(InterpError, match=r"do not say that their rows are pairs .* leave temporal at 0"):
        train(Rows(x), RULES[0], held_out=x[:256])

    class Odd(Pairs):
        batch_size = 255

        def from_batch(self, first):
            return iter(self.x.split(255)[first : len(self)])

    with pytest.raises(InterpError, match="batch 0 has 255 rows, which are no whole pairs"):
        train(Odd(x), RULES[0], held_out=x[:256])
