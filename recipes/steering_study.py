"""How many features of the embedded SAE are controllers, detectors, both or neither.

    python recipes/steering_study.py            # goes on where it stopped; about half an hour on two cores
    python recipes/steering_study.py --restart

The rule, fixed before any feature was looked at: of the live features of the shipped index, sorted by density and cut into
five equal strata, 40 of each are drawn without replacement (numpy's default_rng(2025), strata from rare to dense). The
first 4 drawn of each stratum are also steered with generation. Each of the 200 is judged by `Workbench.verdict`, whose
thresholds are constants of interp/steering/verdict.py. Results: benchmarks/results/steering_study.json.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from interp import places
from interp.evidence import steered
from interp.evidence.card import evidence_folder
from interp.evidence.part import write_part
from interp.index import FeatureIndex
from interp.progress import bar
from interp.render.terminal import say
from interp.statistics import bootstrap, wilson
from interp.steering import StrengthSweepConfig
from interp.steering.verdict import DOUBLE, HALF
from interp.workbench import EMBEDDED, Workbench

SEED, STRATA, EACH, GENERATED = 2025, 5, 40, 4
FACTORS = (1.0, 2.0, 4.0)
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "steering_study.json"
VERDICTS = ("controller", "detector", "both", "neither")


def drawn(density: np.ndarray) -> list[tuple[int, int, bool]]:
    """(feature, stratum, whether it is generated with)."""
    live = np.flatnonzero(density > 0)
    order = live[np.argsort(density[live], kind="stable")]
    draw = np.random.default_rng(SEED)
    chosen = []
    for stratum, members in enumerate(np.array_split(order, STRATA)):
        for rank, feature in enumerate(draw.choice(members, EACH, replace=False)):
            chosen.append((int(feature), stratum, rank < GENERATED))
    return chosen


def main() -> None:
    wb = Workbench.open(EMBEDDED, labels="sqlite://")
    # The shipped index, even where a full one was built, so that everybody draws the same features.
    wb.__dict__["index"] = FeatureIndex.open(wb.folder / "index")
    chosen = drawn(wb.index.features["density"].to_numpy())
    # Verdicts by earlier rules lie beside it: under the hash alone, and with -stays-text.
    kept = places.cache() / "steering-study" / f"{wb.card.sae_sha256}-measured-targets.jsonl"
    if "--restart" in sys.argv:
        kept.unlink(missing_ok=True)
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["feature"], row["what"]) for row in rows}
    todo = [(f, s, "verdict") for f, s, _ in chosen] + [(f, s, "sweep") for f, s, generated in chosen if generated]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with bar("study", len(todo) - len(done), "features") as step, kept.open("a", encoding="utf-8") as file:
        for feature, stratum, what in todo:
            if (feature, what) in done:
                continue
            row = {"feature": feature, "stratum": stratum, "what": what} | one(wb, feature, what)
            rows.append(row)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            step(1)
    places.write_json(RESULTS, report(wb, rows))
    keep(wb, [row for row in rows if row["what"] == "verdict"])
    say(f"{len(rows)} results in {RESULTS}")


def keep(wb: Workbench, judged: list[dict[str, Any]]) -> None:
    """The verdicts as a part of the SAE's evidence, which `interp evidence SAE` joins with the rest."""
    about = {"sae_sha256": wb.card.sae_sha256, "model_sha256": wb.card.model_sha256, "dtype": wb.model.dtype_name}
    about |= {"drawn": f"{EACH} of each of {STRATA} strata of density, seed {SEED}", "features": len(judged)}
    about |= {"targets": "measured"}
    folder = evidence_folder(wb.card.sae_sha256)
    folder.mkdir(parents=True, exist_ok=True)
    with places.whole_file(folder / steered.FILE) as partial:
        write_part(steered.make_steering(judged, about), partial)


def one(wb: Workbench, feature: int, what: str) -> dict[str, Any]:
    if what == "verdict":
        return {key: value for key, value in vars(wb.verdict(feature)).items() if key != "sentence"}
    found = wb.sweep(feature, config=StrengthSweepConfig(factors=FACTORS, verdict=False))
    names = ("shift", "kl", "perplexity", "distinct_2", "loops", "fires", "says_target")
    return {
        "points": [
            {"series": series, "factor": p.factor} | {name: getattr(p, name)[0] for name in names}
            for series, points in (("baseline", [found.baseline]), *found.series.items())
            for p in points
        ]
    }


# ---- the tables ----


def report(wb: Workbench, rows: list[dict[str, Any]]) -> dict[str, Any]:
    judged = [row for row in rows if row["what"] == "verdict"]
    swept = [row for row in rows if row["what"] == "sweep"]
    return {
        "sae": wb.card.name,
        "sae_sha256": wb.card.sae_sha256,
        "model_sha256": wb.card.model_sha256,
        "dtype": wb.model.dtype_name,
        "features": len(judged),
        "verdicts": {v: share([row["verdict"] == v for row in judged]) for v in VERDICTS},
        "by stratum, rare to dense": [
            {v: sum(r["verdict"] == v for r in judged if r["stratum"] == s) for v in VERDICTS} for s in range(STRATA)
        ],
        "moves": share([row["moves"] for row in judged]),
        "stays text": share([row["fluent"] for row in judged]),
        "moves and stays text": share([row["moves"] and row["fluent"] for row in judged]),
        "fires": share([row["fires"] for row in judged]),
        "detection": detections(judged),
        "controls judged as if they were the feature": controls(judged),
        "parts of moving": parts(judged),
        "moves, by how many times as likely": {
            f"{times:g}": share([moves(row, math.log(times)) for row in judged]) for times in (1.0, 1.5, 2.0, 5.0, 10.0)
        },
        "fires, by least share": {
            f"{least:g}": share([fires(row, least) for row in judged]) for least in (0.25, 0.5, 0.75)
        },
        "scores": scores(judged),
        "generation": generation(swept),
        "judged": [small(row) for row in judged],
        "swept": swept,
    }


def share(hits: list[bool]) -> dict[str, Any]:
    """Count, share and Wilson's 95 % interval."""
    mean, low, high = wilson(sum(hits), len(hits))
    return {
        "count": int(sum(hits)),
        "of": len(hits),
        "share": round(mean, 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def moves(row: dict[str, Any], least: float = DOUBLE) -> bool:
    beyond = row["output_score"] > max(row["output_score_controls"])
    return beyond and row["shift"][1] > max(least, *row["shift_controls"]) and beyond_noise(row)


def beyond_noise(row: dict[str, Any]) -> bool:
    """Whether the means are above those of every noise with targets of its own."""
    return row["shift"][0] > max(row["shift_noises"]) and row["output_score"] > max(row["output_score_noises"])


def fires(row: dict[str, Any], least: float = HALF) -> bool:
    return row["detection"] >= least and row["detection"] > max(row["detection_controls"])


def detections(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """How many features peak on known tokens in half of their examples: strongest, by fifth; and in half of all firings."""

    def half(figures: list[list[float]]) -> dict[str, Any]:
        return share([figure[0] is not None and figure[0] >= HALF for figure in figures])

    return {
        "half of the strongest": half([row["detection_strongest"] for row in judged]),
        "half of each fifth, strong to weak": [half([row["detection_fifths"][n] for row in judged]) for n in range(5)],
        "half of the fifths together": half([row["detection_range"] for row in judged]),
        "half of the examples kept from training": half([row["detection_reserved"] for row in judged]),
        "half of all firings, at least": share([row["firings"] >= HALF for row in judged]),
    }


def controls(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """How often a control passes the feature's tests against the feature's other controls."""
    moved, fired = [], []
    for row in judged:
        shifts, scores = row["shift_controls"], row["output_score_controls"]
        for n in range(len(shifts)):
            rest = shifts[:n] + shifts[n + 1 :]
            others = scores[:n] + scores[n + 1 :]
            beyond = shifts[n] > max(row["shift_noises"]) and scores[n] > max(row["output_score_noises"])
            moved.append(shifts[n] > max(DOUBLE, *rest) and scores[n] > max(others) and beyond)
        found = row["detection_controls"]
        for n in range(len(found)):
            fired.append(found[n] >= HALF and found[n] > max(found[:n] + found[n + 1 :]))
    return {"moves": share(moved), "fires": share(fired), "noise, with targets of its own, moves": noisy(judged)}


def noisy(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of the noises would be said to move the output, by the whole rule and with targets of their own."""
    each = len(judged[0]["shift_noises"])
    return share([n < row["noises_that_move"] for row in judged for n in range(each)])


def parts(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """Each condition of moving by itself."""
    return {
        "shift beyond all controls": share([row["shift"][0] > max(row["shift_controls"]) for row in judged]),
        "lower end of the shift beyond all controls": share(
            [row["shift"][1] > max(row["shift_controls"]) for row in judged]
        ),
        "lower end of the shift at least doubles": share([row["shift"][1] > DOUBLE for row in judged]),
        "output score beyond all controls": share(
            [row["output_score"] > max(row["output_score_controls"]) for row in judged]
        ),
        "mean shift beyond noise with targets of its own": share(
            [row["shift"][0] > max(row["shift_noises"]) for row in judged]
        ),
        "output score beyond noise with targets of its own": share(
            [row["output_score"] > max(row["output_score_noises"]) for row in judged]
        ),
        "KL beyond all matched features": share([row["kl"] > max(row["kl_controls"][:-5]) for row in judged]),
        "KL beyond all noise": share([row["kl"] > max(row["kl_controls"][-5:]) for row in judged]),
        "the opposite direction makes the tokens less likely": share([row["flipped"] < 0 for row in judged]),
    }


def scores(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """Quartiles of the two scores of Arad et al., and of the controls' output scores."""

    def quartiles(values: list[float]) -> list[float]:
        return [float(f"{q:.3g}") for q in np.percentile(values, [25, 50, 75, 95])]

    high_input = [row["input_score"] > 0 for row in judged]
    return {
        "output score, quartiles and 95 %": quartiles([row["output_score"] for row in judged]),
        "of controls": quartiles([x for row in judged for x in row["output_score_controls"]]),
        "input score above 0": share(high_input),
        "moves, of those with input score above 0": share(
            [row["moves"] for row, h in zip(judged, high_input, strict=True) if h]
        ),
        "moves, of the others": share([row["moves"] for row, h in zip(judged, high_input, strict=True) if not h]),
    }


def generation(swept: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the features, with bootstraps over them; and the feature less its controls."""
    table: dict[str, Any] = {}
    names = ("shift", "kl", "perplexity", "distinct_2", "loops", "fires", "says_target")

    def value(row: dict[str, Any], series: str, factor: float, name: str) -> float:
        found = [p[name] for p in row["points"] if p["series"] == series and p["factor"] == factor]
        return float(found[0]) if found else math.nan

    def figure(values: list[float]) -> list[float]:
        return [round(x, 4) for x in bootstrap(np.array(values))]

    for factor in FACTORS:
        for series in ("feature", "random features", "noise", "sign flipped"):
            table[f"{series} at {factor:g}"] = {n: figure([value(r, series, factor, n) for r in swept]) for n in names}
        for series in ("random features", "noise"):
            table[f"feature less {series} at {factor:g}"] = {
                n: figure([value(r, "feature", factor, n) - value(r, series, factor, n) for r in swept]) for n in names
            }
    for series in ("baseline", "prompt only"):
        table[series] = {n: figure([value(r, series, 0.0, n) for r in swept]) for n in names}
    return table


def small(row: dict[str, Any]) -> dict[str, Any]:
    """A judged feature with its controls as their maxima."""
    keep = (
        "feature",
        "stratum",
        "verdict",
        "strength",
        "shift",
        "flipped",
        "output_score",
        "kl",
        "perplexity_ratio",
        "loops",
        "fluent",
        "detection",
        "detection_strongest",
        "detection_fifths",
        "firings",
        "input_score",
    )
    largest = {
        f"{name}, largest control": max(row[f"{name}_controls"])
        for name in ("shift", "output_score", "kl", "detection")
    }
    largest |= {f"{name}, largest noise": max(row[f"{name}_noises"]) for name in ("shift", "output_score")}
    return {key: row[key] for key in keep} | largest | {"targets": row["targets"][:5]}


if __name__ == "__main__":
    main()
