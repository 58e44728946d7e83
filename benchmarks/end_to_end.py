"""From a fresh model and a folder of text to a searchable, labelled index, stage by stage, beside SAELens and SAEDashboard.

    make bench-peers                     # the others' environments, once
    python benchmarks/end_to_end.py      # a million tokens, d_sae 4,608; --tokens and --peer-tokens for less

Ours is what a user types, each command a process of its own, in an INTERP_HOME that holds no model yet. The text is a folder
of .jsonl files, made beforehand of the training mix (minutes, not timed) or given as --text FOLDER.

The others read the model's folder that ours made, and the same tokens, in blocks as ours has them (so they tokenise nothing).
They take long: SAELens' run and SAEDashboard's forward passes are measured on --peer-tokens, its pages on --peer-batches of
128 features of all tokens, and each of these stages is scaled in proportion to what it was measured on. What is done once
(starting, opening the model) is not scaled. Every figure says what it was measured on. SAEDashboard is given the SAE that ours
trained, since SAELens' has then seen a part only. The others name no feature without a language model, so they have no such
stage.

`seconds` are by the clock, `busy` those of processors, which other work on the machine does not lengthen as much; memory is the
largest resident size of a stage's process. The others' is that of the part, which the whole can only exceed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from common import PEERS_PYTHON, report

ROOT = Path(__file__).parent.parent
PEER = Path(__file__).with_name("end_to_end_peer.py")
DASHBOARD_PYTHON = ROOT / ".peers-dashboard" / "bin" / "python"
FEATURES = 128
"""Features in a batch of SAEDashboard's."""
NAMES = "names"
"""The stage that the others do not have."""
CHARACTERS = 6
"""Of text written for each token asked for, more than it takes."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as it was measured, and how much of it there is in the whole."""

    stage: str
    seconds: float
    busy: float
    """Seconds of processors."""
    peak_mib: float
    measured: int = 1
    whole: int = 1
    unit: str = ""
    """What is counted: tokens, batches; nothing where it is done once."""

    def at_whole(self) -> "Stage":
        """The same for the whole, by proportion."""
        times = self.whole / self.measured
        return replace(self, seconds=self.seconds * times, busy=self.busy * times)

    def said(self) -> str:
        """On what it was measured, and whether it is scaled from that."""
        if not self.unit:
            return "measured"
        if self.whole == self.measured:
            return f"measured on all {self.whole:,} {self.unit}"
        return f"scaled from {self.measured:,} to {self.whole:,} {self.unit}"


def told(answer: dict[str, Any], peak_mib: float, whole: dict[str, int]) -> list[Stage]:
    """The stages of a peer's answer; `whole` is how much there is of each unit."""
    return [Stage(**row, peak_mib=peak_mib, whole=whole.get(row.get("unit", ""), 1)) for row in answer["stages"]]


def total(stages: Sequence[Stage]) -> dict[str, float]:
    """What all stages come to at the whole, and the largest memory of any."""
    whole = [each.at_whole() for each in stages]
    return {
        "seconds": sum(each.seconds for each in whole),
        "processor seconds": sum(each.busy for each in whole),
        "peak MiB": max(each.peak_mib for each in whole),
    }


def compared(ours: Sequence[Stage], theirs: Sequence[Stage]) -> dict[str, Any]:
    """Both, stage by stage, and how many times as long the others take in all; ours with its labels."""
    mine, other = total(ours), total(theirs)
    unnamed = total([each for each in ours if each.stage != NAMES])
    scaled = sum(each.at_whole().seconds for each in theirs if each.whole != each.measured)
    return {
        "interp": {"stages": [rounded(each) for each in ours], "whole": _short(mine)},
        "SAELens and SAEDashboard": {"stages": [rounded(each) for each in theirs], "whole": _short(other)},
        "of theirs, seconds that are scaled": round(scaled, 1),
        "times as fast, by the clock": round(other["seconds"] / mine["seconds"], 2),
        "times as fast, by processors": round(other["processor seconds"] / mine["processor seconds"], 2),
        "without our names, by the clock": round(other["seconds"] / unnamed["seconds"], 2),
        "without our names, by processors": round(other["processor seconds"] / unnamed["processor seconds"], 2),
    }


def rounded(stage: Stage) -> dict[str, Any]:
    """A stage as the results have it: what was measured, and what that makes of the whole."""
    whole = stage.at_whole()
    row = {name: round(value, 1) if isinstance(value, float) else value for name, value in asdict(stage).items()}
    return row | {
        "seconds, whole": round(whole.seconds, 1),
        "busy, whole": round(whole.busy, 1),
        "which is": stage.said(),
    }


def _short(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in figures.items()}


def page(figures: dict[str, Any]) -> str:
    """The stages of both as rows of Markdown."""
    lines = ["| stage | s | processor s | peak MiB | |", "|---|---|---|---|---|"]
    for who in ("interp", "SAELens and SAEDashboard"):
        if who not in figures:
            continue
        for row in figures[who]["stages"]:
            cells = (f"{row['seconds, whole']:,.0f}", f"{row['busy, whole']:,.0f}", f"{row['peak_mib']:,.0f}")
            lines.append(f"| {row['stage']} | {' | '.join(cells)} | {row['which is']} |")
        whole = figures[who]["whole"]
        lines.append(
            f"| **{who}, whole** | {whole['seconds']:,.0f} | {whole['processor seconds']:,.0f} "
            f"| {whole['peak MiB']:,.0f} | |"
        )
    return "\n".join(lines)


# ---- measured ----


def measure(name: str, call: Sequence[object], env: dict[str, str]) -> tuple[Stage, str]:
    """A program as a stage, and what it printed.

    Its memory is the most that was ever resident, as Linux keeps it for the process, read twenty times a second.
    """
    peak = 0.0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen([str(word) for word in call], stdout=out, stderr=err, env=os.environ | env)
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.05):
                peak = max(peak, _resident(process.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        ended.set()
        watching.join()
        for file in (out, err):
            file.seek(0)
        if process.returncode:
            raise SystemExit(f"{name} failed: {' '.join(map(str, call))}\n{err.read()[-3000:]}")
        return Stage(stage=name, seconds=seconds, busy=usage.ru_utime + usage.ru_stime, peak_mib=peak), out.read()


def _resident(pid: int) -> float:
    """The largest resident size a process has had, MiB; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


# ---- ours ----


def write_text(folder: Path, characters: int) -> None:
    """A folder of .jsonl files, one a source, of the recipe's training mix."""
    sys.path.insert(0, str(ROOT / "recipes"))
    import smollm2

    from interp.corpus import mix, open_corpus

    folder.mkdir(parents=True)
    text, written = mix([(open_corpus(name), share) for name, share in smollm2.MIX.items()]), 0
    for doc in text.documents():
        with (folder / f"{doc.source}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": doc.text, "title": doc.title}) + "\n")
        written += len(doc.text)
        if written >= characters:
            return
    raise SystemExit(f"the mix has {written:,} characters, not {characters:,}; ask for fewer tokens.")


def commands(model: str, text: Path, hook: str, at: Path, tokens: int, d_sae: int, k: int) -> dict[str, list[object]]:
    """What a user types, by stage."""
    return {
        "open the model": ["hooks", model],
        "harvest": ["harvest", model, text, hook, "--tokens", tokens, "--into", at / "acts"],
        "train": ["train", at / "acts", hook, at / "sae", "--d-sae", d_sae, "--k", k],
        "index": ["index", at / "sae", "--acts", at / "acts"],
        NAMES: ["autolabel", at / "sae"],
        "a first search": ["search", at / "sae", "the", "--json"],
    }


def ours(words: dict[str, list[object]], home: Path) -> list[Stage]:
    env = {"INTERP_HOME": str(home)}
    stages = []
    for name, typed in words.items():
        stage, _ = measure(name, [sys.executable, "-m", "interp.cli", *typed], env)
        print(json.dumps(rounded(stage)), flush=True)
        stages.append(stage)
    return stages


# ---- theirs ----


def write_sequences(acts: Path, file: Path) -> int:
    """The harvest's tokens as rows of one block each, as SAELens reads a text of tokens; how many tokens there are."""
    block = json.loads((acts / "manifest.json").read_text())["recipe"]["block"]
    tokens = pq.read_table(acts / "tokens.parquet", columns=["token"])["token"].to_numpy().astype("int32")
    rows = pa.ListArray.from_arrays(list(range(0, len(tokens) + 1, block)), pa.array(tokens))
    pq.write_table(pa.table({"input_ids": rows}), file)
    return len(tokens)


def theirs(request: dict[str, Any], whole: dict[str, int], env: dict[str, str]) -> tuple[list[Stage], dict[str, Any]]:
    """Their stages, and the versions of what ran."""
    stages, versions = [], {}
    for what, python in (("train", PEERS_PYTHON), ("dashboard", DASHBOARD_PYTHON)):
        process, printed = measure(what, [python, PEER, what, json.dumps(request)], env)
        answer = json.loads(printed.strip().splitlines()[-1])
        for stage in told(answer, process.peak_mib, whole):
            print(json.dumps(rounded(stage)), flush=True)
            stages.append(stage)
        versions[what] = answer["versions"]
    return stages, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--d-sae", type=int, default=4608)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--text", type=Path, help="a folder of text; one that is not there is made, and kept")
    parser.add_argument("--peer-tokens", type=int, default=131_072)
    parser.add_argument("--peer-batches", type=int, default=3)
    parser.add_argument("--autocast", action="store_true", help="SAELens in bfloat16, which it does not do by default")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--into", type=Path, help="a new folder in which all is made, and kept")
    parser.add_argument("--name", default="end_to_end", help="of the file of results")
    given = parser.parse_args()
    missing = [python for python in (PEERS_PYTHON, DASHBOARD_PYTHON) if not python.exists()]
    if missing and not given.no_peer:
        sys.exit(f"there is no {missing[0]}; `make bench-peers` makes it, and --no-peer does without.")
    if given.into is not None and given.into.exists():
        sys.exit(f"{given.into} exists; name a new folder, for what lies there would not be made again.")
    at = Path(tempfile.mkdtemp()) if given.into is None else given.into
    try:
        report(given.name, figures := whole_way(given, at))
        print(page(figures))
    finally:
        if given.into is None:
            shutil.rmtree(at)


def whole_way(given: argparse.Namespace, at: Path) -> dict[str, Any]:
    """Both ways in a folder, and what is said of them."""
    model, layer, home = "smollm2", 15, at / "home"
    if not (text := given.text or at / "text").exists():
        write_text(text, CHARACTERS * given.tokens)
    hook = f"blocks.{layer}.hook_resid_post"
    mine = ours(commands(model, text, hook, at, given.tokens, given.d_sae, given.k), home)
    tokens = write_sequences(at / "acts", at / "sequences.parquet")
    figures: dict[str, Any] = {"model": model, "hook": hook, "tokens": tokens, "d_sae": given.d_sae, "k": given.k}
    if given.no_peer:
        return figures | {"interp": {"stages": [rounded(each) for each in mine], "whole": _short(total(mine))}}
    folder = next((home / "cache" / "models").glob("smollm2*"))
    manifest = json.loads((at / "acts" / "manifest.json").read_text())
    request = {
        "model": str(folder),
        "layer": layer,
        "d_in": json.loads((folder / "config.json").read_text())["hidden_size"],
        "d_sae": given.d_sae,
        "k": given.k,
        "block": manifest["recipe"]["block"],
        "tokens": min(given.peer_tokens, tokens),
        "batches": given.peer_batches,
        "autocast": given.autocast,
        "sequences": str(at / "sequences.parquet"),
        "acts": str(at / "acts"),
        "sae": str(at / "sae"),
        "into": str(at),
    }
    whole = {"tokens": tokens, f"batches of {FEATURES} features": -(-given.d_sae // FEATURES)}
    other, versions = theirs(request, whole, {"HF_HOME": str(at / "hub"), "HF_HUB_OFFLINE": "1"})
    return figures | {"autocast": given.autocast, "versions": versions} | compared(mine, other)


if __name__ == "__main__":
    main()
