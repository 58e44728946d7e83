"""One SAE on several ranks: real processes over real sockets give the SAE of one process, and none is waited for in vain."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from interp.checkpoint import by_offset, load
from interp.recipe.forecast import sent_a_step
from interp.sae import ARCHITECTURES
from interp.sae.metrics import reconstruction
from interp.training import parallel
from interp.training.state import FILE, first_rows
from interp.types import InterpError
from tests import ranks

FVU = 1e-4
"""How far a run's FVU may be from one process's, at every step."""
WEIGHTS = 2e-3
"""And each weight, which is rounded to float16."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks have
    yield
    torch.set_num_threads(before)


def said(folder: Path, rank: int) -> str:
    return (folder / f"said.{rank}").read_text()


EVERY = [(kind, {}) for kind in ("topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated", "crosscoder")]
RESAMPLED = ("standard", {"resample": True, "dead_after": 128})


@pytest.mark.parametrize(
    ("world", "features", "runs"),
    [
        (2, 1, [*EVERY, ("transcoder", {}), RESAMPLED]),
        (2, 2, [*EVERY, ("transcoder", {}), RESAMPLED]),
        (4, 2, [*EVERY[:2], RESAMPLED]),
    ],
    ids=["rows", "features", "rows and features"],
)
def test_several_ranks_make_the_sae_of_one(tmp_path, world, features, runs):
    batches = 16
    begun = ranks.begin(world, ranks.trained, tmp_path, features, batches, runs)
    alone = [ranks.run(kind, 1, batches, more=more)[0] for kind, more in runs]
    assert ranks.end(begun) == [0] * world, said(tmp_path, 0)
    for number, ((kind, _), steps) in enumerate(zip(runs, alone, strict=True)):
        measured = torch.load(tmp_path / f"{number}.pt")
        assert len(measured) == len(steps)
        for (fvu, l0, dead), step in zip(measured, steps, strict=True):
            assert fvu == pytest.approx(step.fvu, abs=FVU), kind
            assert (l0, dead) == pytest.approx((step.l0, step.dead), abs=0.05), kind
        sae, one = load(tmp_path / str(number)), steps[-1].sae
        for name, weights in one.state_dict().items():
            assert torch.allclose(getattr(sae, name), weights, atol=WEIGHTS, rtol=WEIGHTS), (kind, name)
    # AuxK and resampling had something to do.
    assert max(step.dead for step in alone[0]) > 0
    assert max(step.dead for step in alone[-1]) > 0


def test_the_same_entries_pass_on_several_ranks_though_many_are_equal(tmp_path):
    assert ranks.end(ranks.begin(4, ranks.chosen, tmp_path, 2)) == [0] * 4, said(tmp_path, 0)
    for dtype in (torch.bfloat16, torch.float32):
        parts = [torch.load(tmp_path / f"{dtype}.{rank}.pt") for rank in range(4)]
        rows, features, values = (torch.cat(part) for part in zip(*parts, strict=True))
        order = (rows * ranks.D_SAE + features).argsort()
        one, _ = ranks.choice(dtype)
        assert len(one.rows) == 5 * ranks.BATCH
        assert len(one.values.unique()) < 40
        assert torch.equal(rows[order], one.rows)
        assert torch.equal(features[order], one.features)
        assert torch.equal(values[order], one.values)


@pytest.mark.parametrize(("before", "after"), [((2, 1), (2, 1)), ((2, 2), (1, 1))], ids=["the same", "one"])
def test_a_killed_rank_ends_the_others_and_the_run_goes_on(tmp_path, before, after):
    """On as many ranks the end has the bytes of a run that nobody disturbed, on another number the same FVU."""
    batches, (world, features) = 60, before
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    begun = ranks.begin(world, ranks.resumed, broken, features, batches)
    ranks.until(broken / "run" / FILE, begun, broken)
    time.sleep(random.Random(world + features).random() * 0.3)
    assert all(rank.is_alive() for rank in begun)
    begun[-1].kill()
    killed = time.perf_counter()
    assert ranks.end(begun)[0] == 2
    assert time.perf_counter() - killed < 30
    assert "another rank has ended" in said(broken, 0)
    assert "the same command goes on" in said(broken, 0)
    world, features = after
    if world > 1:
        assert ranks.end(ranks.begin(world, ranks.resumed, whole, features, batches)) == [0] * world
        assert ranks.end(ranks.begin(world, ranks.resumed, broken, features, batches)) == [0] * world
        for name in ("sae/sae_weights.safetensors", "sae/cfg.json"):
            assert (broken / name).read_bytes() == (whole / name).read_bytes()
        return
    steps, _ = ranks.run("batchtopk", 1, batches, into=broken / "run")
    assert 0 < steps[0].step < batches
    assert "1 x 2 ranks" in steps[0].notes[0]
    one, _ = ranks.run("batchtopk", 1, batches)
    assert steps[-1].fvu == pytest.approx(one[-1].fvu, abs=FVU)
    assert steps[-1].tokens == one[-1].tokens


def test_a_state_of_one_process_goes_on_on_ranks_and_is_the_same_file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    ranks.run("topk", 1, 8, into=tmp_path / "one" / "run")
    assert ranks.end(ranks.begin(2, ranks.resumed, tmp_path / "two", 2, 8, "topk")) == [0, 0], said(tmp_path / "two", 0)
    one, two = (load(tmp_path / name / "run" / "latest") for name in ("one", "two"))
    x = ranks.planted(ranks.HELD)
    assert reconstruction(one, x).fvu == pytest.approx(reconstruction(two, x).fvu, abs=FVU)
    assert ranks.end(ranks.begin(2, ranks.resumed, tmp_path / "one", 1, 8, "topk")) == [0, 0], said(tmp_path / "one", 0)
    files = [(tmp_path / name / "run" / FILE) for name in ("one", "two")]
    assert files[0].stat().st_size == files[1].stat().st_size


def test_who_asks_one_rank_to_stop_stops_all_with_their_step_saved(tmp_path):
    begun = ranks.begin(2, ranks.stoppable, tmp_path, 1000)
    ranks.until(tmp_path / "step", begun, tmp_path)
    os.kill(begun[1].pid, signal.SIGTERM)
    assert ranks.end(begun) == [2, -signal.SIGTERM]
    assert "the run was stopped before its end" in said(tmp_path, 0)
    with safe_open(tmp_path / "run" / FILE, framework="pt") as file:
        assert file.metadata()["step"] == (tmp_path / "step").read_text()


def test_a_rank_that_hangs_is_not_waited_for(tmp_path):
    begun = ranks.begin(2, ranks.resumed, tmp_path, 1, 400, patience=2)
    ranks.until(tmp_path / "run" / FILE, begun, tmp_path)
    os.kill(begun[1].pid, signal.SIGSTOP)
    stopped = time.perf_counter()
    begun[0].join(30)
    assert begun[0].exitcode == 2
    assert time.perf_counter() - stopped < 10
    assert "did not answer" in said(tmp_path, 0)
    ranks.end(begun, 0)


@pytest.mark.parametrize(("task", "what"), [(ranks.other_data, "activations"), (ranks.other_settings, "settings")])
def test_ranks_that_do_not_agree_are_refused(tmp_path, task, what):
    assert ranks.end(ranks.begin(2, task, tmp_path)) == [2, 2]
    for rank in (0, 1):
        assert f"the ranks have different {what}" in said(tmp_path, rank)


def test_what_cannot_be_shared_is_refused_with_a_sentence(tmp_path):
    assert ranks.end(ranks.begin(2, ranks.refused, tmp_path)) == [0, 0], said(tmp_path, 0)
    wanted = (
        "a batch of 63 rows cannot be shared equally among 2 ranks",
        "33 features cannot be shared equally among 2 ranks",
        "feature_ranks is 3, and there are 2 ranks",
        "temporal contrast",
        "orthogonal compares features with each other",
    )
    for rank in (0, 1):
        lines = (tmp_path / f"sentences.{rank}").read_text().split("\n")
        assert len(lines) == len(wanted)
        assert all(part in line for part, line in zip(wanted, lines, strict=True)), lines
    with pytest.raises(InterpError, match="feature_ranks is 2, and there are 1 ranks"):
        parallel.shards_of(ranks.rule_of("topk"), 2)


def test_the_command_line_trains_on_two_ranks(store, tmp_path):
    from tests.conftest import HOOK

    def call(folder: Path, *more: object) -> list[int | None]:
        folder.mkdir(exist_ok=True)
        given = (
            "train",
            store.folder,
            HOOK,
            folder / "sae",
            "--d-sae",
            32,
            "--k",
            2,
            "--batch",
            64,
            "--set",
            "bfloat16=false",
        )
        return ranks.end(ranks.begin(2, ranks.command, folder, *given, *more))

    assert call(tmp_path / "a", "--set", "feature_ranks=2") == [0, 0], said(tmp_path / "a", 0)
    assert call(tmp_path / "a", "--set", "feature_ranks=2") == [0, 0], said(tmp_path / "a", 0)
    assert "holds this SAE already" in said(tmp_path / "a", 0)
    assert "d_sae=32" in said(tmp_path / "a", 0)
    assert said(tmp_path / "a", 1) == ""
    files = {path.name for path in (tmp_path / "a" / "sae").iterdir()}
    assert files >= {"cfg.json", "sae_weights.safetensors", "card.json", "training_log.jsonl"}
    assert load(tmp_path / "a" / "sae").d_sae == 32  # whose card has the weights' hash
    from sae_lens import SAE as Theirs

    theirs = Theirs.load_from_disk(str(tmp_path / "a" / "sae"))
    assert torch.equal(theirs.W_enc.data, load(tmp_path / "a" / "sae").W_enc)
    assert call(tmp_path / "b", "--set", "feature_ranks=3") == [2, 2]
    assert "no whole number of such groups" in said(tmp_path / "b", 0)


@pytest.mark.slow
def test_torchrun_begins_a_run_anew_when_a_rank_was_killed(store, tmp_path):
    """Its own processes: they import everything twice."""
    from tests.conftest import HOOK, ROOT

    given = ["train", store.folder, HOOK, tmp_path / "sae", "--d-sae", 32, "--k", 2, "--batch", 64, "--epochs", 6]
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--max-restarts", 1, "-m", "interp"]
    whole = [*map(str, (*call, *given)), "--set", "save_every=1024"]
    begun = subprocess.Popen(whole, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "sae" / ".run" / FILE).exists():
        assert begun.poll() is None
        time.sleep(0.05)
    psutil.Process(begun.pid).children()[-1].kill()
    said, error = begun.communicate(timeout=120)
    assert begun.returncode == 0, error
    assert "another rank has ended" in error
    assert "d_sae=32" in said
    assert said.count("\n") == 1
    records = [json.loads(line) for line in (tmp_path / "sae" / "training_log.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records]
    assert steps == sorted(steps)
    assert records[-1]["finished"]


@pytest.mark.parametrize(("world", "features"), [(2, 1), (2, 2)], ids=["rows", "features"])
def test_a_plan_tells_what_ranks_send(tmp_path, world, features):
    kinds = ("topk", "batchtopk")
    assert ranks.end(ranks.begin(world, ranks.counted, tmp_path, features, kinds)) == [0] * world, said(tmp_path, 0)
    for kind in kinds:
        rule = ARCHITECTURES[kind](d_in=64, d_sae=512, k=8)
        told = sent_a_step(rule, 512 // (world // features), world // features, features)
        assert float((tmp_path / f"{kind}.0").read_text()) == pytest.approx(told, rel=0.15)


def test_parts_written_by_offset_are_the_file_that_is_written_whole(tmp_path):
    whole = {"W_enc": torch.randn(6, 8), "b": torch.randn(8).half(), "n": torch.arange(3), "s": torch.tensor(2.0)}
    meta = {"recipe": "é"}  # of several keys safetensors writes any first
    save_file(whole, tmp_path / "whole", metadata=meta)
    layout = by_offset.Layout.of({name: (tuple(x.shape), x.dtype) for name, x in whole.items()}, meta)
    by_offset.begin(tmp_path / "parts", layout)
    for first in (4, 0):
        part = {
            "W_enc": (whole["W_enc"][:, first : first + 4], 1, first),
            "b": (whole["b"][first : first + 4], 0, first),
        }
        by_offset.write(tmp_path / "parts", layout, part)
    by_offset.write(tmp_path / "parts", layout, {name: (whole[name], None, 0) for name in ("n", "s")})
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("d_sae", [48, 1024, 2048, 3001])
def test_a_rank_draws_its_first_rows_as_the_whole_is_drawn(d_sae):
    whole = first_rows(d_sae, 5, 3)
    for held in (slice(0, d_sae // 3), slice(d_sae // 3, d_sae)):
        assert torch.equal(first_rows(d_sae, 5, 3, held), whole[held])
