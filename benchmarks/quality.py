"""Quality at equal sparsity: SAEs of four libraries, trained on the same rows in the same order, scored alike.

    python recipes/smollm2.py texts harvest         # the activations, once (its first 20 shards do for a million tokens)
    make bench-peers                                 # the other libraries' environment, once
    python benchmarks/quality.py [--l0 16,32,64,128] [--only interp] [--d-sae 2304] [--tokens 1000000] [--table]
    python benchmarks/quality.py --l0 32 --architectures batchtopk --set orthogonal=0.1       # ours with other settings

SmolLM2's layer 15, B 4096; every other library with its own defaults for the architecture (benchmarks/peers.py says
which). Scored by one function on held-out documents: thresholded SAEs get the one threshold that passes L0 features a
row on 65,536 held-out rows and are scored on the other rows; TopK keeps its k. Each run is a folder in the cache named
after what it is, goes on when it was stopped (ours), and is not repeated. The results' file keeps the runs of its size
that are not asked for, and those on the activations of an earlier text apart (`activations`; null of the first one).
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, Peers, report
from safetensors.torch import load_file, save_file

from interp import places
from interp.activations import ActivationStore
from interp.sae import SAE, make_architecture
from interp.sae.batchtopk import threshold_for
from interp.sae.metrics import reconstruction
from interp.training import TrainConfig, steps

HOOK, B = "blocks.15.hook_resid_post", 4096
STORES = places.cache() / "recipes" / "smollm2"
FOLDER = places.cache() / "quality" / "smollm2"
THRESHOLD_ROWS, SCORED_ROWS = 65_536, 196_608
RUNS = (
    ("interp", "batchtopk"),
    ("interp", "topk"),
    ("interp", "matryoshka"),
    ("saelens", "batchtopk"),
    ("saelens", "topk"),
    ("dictionary_learning", "batchtopk"),
    ("dictionary_learning", "topk"),
    ("sparsify", "topk"),
)


def rows(tokens: int) -> Path:
    """A file with that many shuffled training rows, in the order in which everybody takes them."""
    path = FOLDER / activations() / f"rows-{tokens}.safetensors"
    if not path.exists():
        store = ActivationStore.open(STORES / "train")
        x = torch.cat([x.bfloat16() for x in _first(store.batches(HOOK, B), tokens // B)])
        with places.whole_file(path) as partial:
            save_file({"x": x}, partial)
    return path


def _first(batches: Any, count: int) -> Iterator[torch.Tensor]:
    for _, batch in zip(range(count), batches, strict=False):
        yield batch


def held_out() -> torch.Tensor:
    store = ActivationStore.open(STORES / "heldout")
    x = torch.cat(list(store.batches(HOOK, 1024, buffer=store.positions)))
    return x[: THRESHOLD_ROWS + SCORED_ROWS]


def score(weights: dict[str, torch.Tensor], l0: int, x: torch.Tensor, own_k: bool) -> dict[str, float]:
    """EV, L0 and dead features of raw-unit weights on the scored rows, at the asked L0."""
    four = {name: weights[name].float() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if own_k:
        sae = SAE(**four, k=l0)
    else:
        # The library's thresholds may differ between features: they are moved together.
        own = weights.get("threshold", torch.zeros(len(four["b_enc"]))).float()
        u, shifted = x[:THRESHOLD_ROWS] - four["b_dec"], four["b_enc"] - own + own.mean()
        level = threshold_for(u, four["W_enc"].T.contiguous(), shifted, l0)
        sae = SAE(**four, threshold=(own - own.mean() + level).clamp_min(0))
    sums = reconstruction(sae, x[THRESHOLD_ROWS:])
    return {"EV": 1 - sums.fvu, "L0": sums.l0, "dead": sums.dead / sums.d_sae, "rows": sums.rows}


def nearest(W_FO: torch.Tensor) -> dict[str, float]:
    """How near decoder rows lie to each other: of each row's largest cosine with another the mean, and how many exceed .5."""
    unit = torch.nn.functional.normalize(W_FO.float(), dim=1)
    largest = torch.cat([(rows @ unit.T).abs().topk(2, dim=1).values[:, 1] for rows in unit.split(1024)])
    return {"nearest": float(largest.mean()), "nearest over .5": float((largest > 0.5).float().mean())}


def train_ours(
    architecture: str, l0: int, d_sae: int, tokens: int, x: torch.Tensor, into: Path, how: dict[str, float]
) -> dict[str, torch.Tensor]:
    data = load_file(rows(tokens))["x"]
    rule = make_architecture(architecture, d_in=data.shape[1], d_sae=d_sae, k=l0)
    seconds, config = [], TrainConfig(tokens=len(data), **how)  # type: ignore[arg-type]
    for step in steps(list(data.split(B)), rule, config, held_out=x[:THRESHOLD_ROWS], into=into):
        seconds.append(step.seconds)
    assert step.sae is not None
    # Of all steps, also those before a stop.
    return {**step.sae.state_dict(), "seconds": torch.tensor(statistics.mean(seconds) * step.step)}


@cache
def activations() -> str:
    """Which text the rows are of."""
    return str(ActivationStore.open(STORES / "train").recipe["tokens_sha256"])[:12]


def folder_of(library: str, architecture: str, l0: int, d_sae: int, tokens: int, how: dict[str, float]) -> Path:
    settings = "".join(f"-{name}{value:g}" for name, value in sorted(how.items()))
    return FOLDER / activations() / f"{library}-{architecture}-{d_sae}-k{l0}-{tokens}{settings}"


def run(
    library: str, architecture: str, l0: int, d_sae: int, tokens: int, how: dict[str, float], peers: list[Peers]
) -> dict[str, Any]:
    """The result of one run, from the cache or trained now."""
    folder = folder_of(library, architecture, l0, d_sae, tokens, how)
    if (folder / "score.json").exists():
        return places.read_json(folder / "score.json")
    x = held_out()
    if library == "interp":
        weights = train_ours(architecture, l0, d_sae, tokens, x, folder / "run", how)
        seconds = float(weights.pop("seconds"))
    else:
        peers[:] = peers or [Peers(threads=torch.get_num_threads())]
        what = {"library": library, "architecture": architecture, "rows": str(rows(tokens)), "d_sae": d_sae}
        peers[0].ask(do="make", id="run", **what, k=l0, batch=B, tokens=tokens, seed=0, autocast=False)
        seconds = float(peers[0].ask(do="train", id="run", out=str(folder))["seconds"])
        weights = load_file(folder / "weights.safetensors")
    found = {"library": library, "architecture": architecture, "k": l0, "d_sae": d_sae, "tokens": tokens}
    found |= {"activations": activations()}
    found |= {"given": how} if how else {}
    found |= (
        nearest(weights["W_dec"]) | score(weights, l0, x, own_k=architecture == "topk") | {"seconds": round(seconds)}
    )
    places.write_json(folder / "score.json", found)
    shutil.rmtree(folder / "run", ignore_errors=True)  # only ours has one
    print(json.dumps(found), flush=True)
    return found


def table(results: list[dict[str, Any]], l0s: list[int]) -> str:
    """Markdown: explained variance by library and architecture (rows) and L0 (columns)."""
    lines = [
        "| library | architecture | " + " | ".join(f"L0 {l0}" for l0 in l0s) + " |",
        "|---|---|" + "---|" * len(l0s),
    ]
    by = {_key(run)[1:]: run for run in results}  # of one text
    for library, architecture in RUNS:
        cells = [by.get((library, architecture, l0)) for l0 in l0s]
        if any(cells):
            shown = [f"{c['EV']:.4f} (dead {c['dead']:.1%})" if c else "" for c in cells]
            lines.append(f"| {library} | {architecture} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--l0", default="16,32,64,128")
    parser.add_argument("--only", help="one library")
    parser.add_argument("--architectures", default="batchtopk,topk,matryoshka")
    parser.add_argument("--d-sae", type=int, default=2304)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--set", type=settings, default={}, help="of ours, instead of the defaults: orthogonal, lr …")
    parser.add_argument("--table", action="store_true", help="train nothing; report the runs there are")
    given = parser.parse_args()
    l0s = [int(l0) for l0 in given.l0.split(",")]
    kinds = given.architectures.split(",")
    only = "interp" if given.set else given.only
    wanted = [(lib, a) for lib, a in RUNS if a in kinds and only in (None, lib)]
    peers: list[Peers] = []
    results = []
    for l0 in l0s:
        for library, architecture in wanted:
            what = (library, architecture, l0, given.d_sae, given.tokens, given.set)
            if not given.table or (folder_of(*what) / "score.json").exists():
                results.append(run(*what, peers))
    print(table(results, l0s))
    if given.set:
        return kept_apart()
    name = "quality" if (given.d_sae, given.tokens) == (2304, 1_000_000) else f"quality_{given.d_sae}"
    runs = {_key(run): run for run in [*_kept(name, given.d_sae, given.tokens), *results]}
    report(name, {"tables": tables(list(runs.values())), "runs": list(runs.values())})


def tables(runs: list[dict[str, Any]]) -> dict[str, list[str]]:
    """A table for each text."""
    of: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        of.setdefault(run.get("activations") or "before", []).append(run)
    return {text: table(some, sorted({run["k"] for run in some})).split("\n") for text, some in of.items()}


def settings(text: str) -> dict[str, float]:
    return {name: float(value) for name, _, value in (part.partition("=") for part in text.split(","))}


def kept_apart() -> None:
    """Report every run of ours that has settings of its own."""
    found = [places.read_json(path) for path in sorted(FOLDER.glob("*/interp-*/score.json"))]
    report("quality_settings", {"runs": [run for run in found if "given" in run]})


def _key(run: dict[str, Any]) -> tuple[str | None, str, str, int]:
    return run.get("activations"), run["library"], run["architecture"], run["k"]


def _kept(name: str, d_sae: int, tokens: int) -> list[dict[str, Any]]:
    """The runs of that size in the results' file."""
    file = RESULTS / f"{name}.json"
    runs = places.read_json(file)["runs"] if file.exists() else []
    return [run for run in runs if (run["d_sae"], run["tokens"]) == (d_sae, tokens)]


if __name__ == "__main__":
    main()
