"""How well the embedded model does what behaviours ask, and which published heads stand in it.

    python recipes/circuits_behaviours.py            # goes on where it stopped; some minutes on two cores
    python recipes/circuits_behaviours.py --restart

SmolLM2-135M-Instruct in float32; 120 prompts of each wording, drawn with seed 0. Figures:
benchmarks/results/circuits_behaviours.json; the page that is made of them: docs/circuits_behaviours.md.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from interp.circuits import behaviour, induction_scores, measure_accuracy, name_mover_scores, previous_token_scores
from interp.circuits.behaviours import BEHAVIOURS, PARAPHRASE, TEMPLATE, Behaviour
from interp.circuits.heads import ATTENDS, BAR, SHARE
from interp.models import Model, open_model
from interp.places import read_json, write_json
from interp.render.terminal import say

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks/results/circuits_behaviours.json", ROOT / "docs/circuits_behaviours.md"
ROWS, LENGTH = 16, 40
"""Of random tokens, for induction and previous-token heads."""
SHOWN = 6
"""Heads of each kind in the page."""


def measure(model: Model, name: str) -> dict[str, Any]:
    """Accuracy of a behaviour, and an example of each wording."""
    prompts = behaviour(name, model)
    return {
        "says": prompts.says,
        "table": measure_accuracy(model, prompts).table(),
        "left_out": dict(prompts.left_out),
        "held_out": sum(pair.held_out for pair in prompts.pairs),
        "examples": {wording: example(model, prompts, wording) for wording in (TEMPLATE, PARAPHRASE)},
    }


def example(model: Model, prompts: Behaviour, wording: str) -> list[str]:
    """Clean, counterfactual, target and distractor of the first pair."""
    first = prompts.select(wording)[0]
    return [first.clean, first.corrupt, model.decode([first.target]), model.decode([first.distractor])]


def heads(model: Model, kind: str) -> dict[str, Any]:
    """The heads of a kind that were found, and the highest whether or not they were."""
    if kind == "name movers":
        scores = name_mover_scores(model, behaviour("ioi", model).select(TEMPLATE))
        return {
            "found": scores.found(),
            "negative": scores.found(negative=True),
            "top": scores.table()[:SHOWN],
            "n": len(scores.logit_B),
            "difference": float(scores.logit_B.mean()),
        }
    found = (induction_scores if kind == "induction" else previous_token_scores)(model, length=LENGTH, rows=ROWS)
    return {"found": found.found(), "top": found.table()[:SHOWN], "n": ROWS, "says": found.says}


def figure(row: Mapping[str, Any], name: str, form: str = ".2f") -> str:
    """A value with its interval."""
    if name not in row:
        return "–"
    return f"{row[name]:{form}} ({row[f'{name}_low']:{form}}–{row[f'{name}_high']:{form}})"


def page(results: Mapping[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [
        "# Behaviours, and how well SmolLM2 does them",
        "",
        "SmolLM2-135M-Instruct, float32. Made by `python recipes/circuits_behaviours.py`.",
        "",
        "*Right*: the share of prompts at which the target's logit is above the distractor's (Wilson's 95 % interval). *Difference*: the mean of",
        "target's less distractor's logit (bootstrap over prompts). *Twin*: the same of the counterfactual prompt, which has as many tokens and after",
        "which the distractor is the right one; of `greater_than` both may follow. Prompts of a behaviour share words, so the intervals hold for more",
        "prompts of the same words and wording, not for others. A choice between two given tokens is easier than saying the one out of all.",
        "",
        "| behaviour | wording | prompts | right | difference | twin right | twin difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in BEHAVIOURS:
        for row in results[name]["table"]:
            cells = (figure(row, key) for key in ("right", "difference", "corrupt_right", "corrupt_difference"))
            lines.append(f"| {name} | {row['wording']} | {row['n']} | {' | '.join(cells)} |")
    lines += ["", "| behaviour | prompt | twin | target | distractor |", "|---|---|---|---|---|"]
    for name in BEHAVIOURS:
        for texts in results[name]["examples"].values():
            lines.append(f"| {name} | {' | '.join(f'`{text}`' for text in texts)} |")
    lines += ["", "Half of the prompts are for attribution and half held out, by a bit of their hash. Left out:", ""]
    for name in BEHAVIOURS:
        why = ", ".join(f"{count} {reason}" for reason, count in results[name]["left_out"].items())
        lines.append(f"- {name}: {why or 'nothing'}; {results[name]['held_out']} held out.")
    return "\n".join([*lines, *heads_lines(results)]) + "\n"


def heads_lines(results: Mapping[str, Any]) -> list[str]:
    """What was found of published heads."""
    lines = [
        "",
        "## Published heads",
        "",
        f"Bars, set before looking: attention of at least {BAR} at the low end of its interval",
    ]
    lines[-1] += (
        f" (induction, previous token); at least {SHARE:.0%} of the logit difference by the direct way and {ATTENDS} of the"
    )
    lines += [
        "attention from the last position to the name, more than to the other name at both its places (name movers)."
    ]
    for kind in ("induction", "previous token"):
        one = results[kind]
        lines += [
            "",
            f"**{kind.capitalize()}: {len(one['found']) or 'none'} found.** {one['says'].capitalize()}; {one['n']} rows.",
        ]
        lines += ["", "| head | score | 95 % | control |", "|---|---|---|---|"]
        lines += [
            f"| {row['head']} | {row['score']:.2f} | {row['low']:.2f}–{row['high']:.2f} | {row['control']:.3f} |"
            for row in one["top"]
        ]
    one = results["name movers"]
    named = ", ".join(row["head"] for row in one["found"]) or "none"
    against = ", ".join(row["head"] for row in one["negative"]) or "none"
    lines += [
        "",
        f"**Name movers: {named}.** Negative ones: {against}. {one['n']} prompts of `ioi`, difference {one['difference']:.2f}.",
    ]
    lines += [
        "",
        "| head | logits | 95 % | share | attention to the name | to the other |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['head']} | {row['logits']:+.2f} | {row['low']:+.2f} to {row['high']:+.2f} | {row['share']:.0%} | "
        f"{row['to_name']:.2f} | {row['to_other']:.2f} |"
        for row in one["top"]
    ]
    return lines


def main() -> None:
    results = read_json(RESULTS) if RESULTS.exists() and "--restart" not in sys.argv else {}
    model = open_model("smollm2", dtype="float32")
    work: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda name=name: measure(model, name) for name in BEHAVIOURS
    }
    work |= {kind: lambda kind=kind: heads(model, kind) for kind in ("induction", "previous token", "name movers")}
    for name, make in work.items():
        if name not in results:
            results[name] = make()
            write_json(RESULTS, results)
            say(f"{name} done")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
