"""Do the features of a few graphs carry a behaviour on prompts that they were not chosen on, and on its paraphrase?

    python recipes/circuits_faithful.py            # goes on where it stopped
    python recipes/circuits_faithful.py --restart

SmolLM2-135M-Instruct through its transcoders, float32. Features are chosen on the graphs of PAIRS pairs of the template (of each
prompt and of its twin), and measured on PROMPTS held-out prompts of the template and of the paraphrase. Figures:
benchmarks/results/circuits_faithful.json; the page that is made of them: docs/circuits_faithful.md.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.circuits.behaviours import PARAPHRASE, TEMPLATE
from interp.circuits.held_out import CONTROLS, NODES
from interp.places import read_json, write_json
from interp.render.terminal import say
from interp.workbench.faithful import measure_behaviour
from interp.workbench.replacing import Opened, open_circuits

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks/results/circuits_faithful.json", ROOT / "docs/circuits_faithful.md"
TRANSCODERS = "saes/smollm2-135m-instruct/transcoders"
BEHAVIOURS = ("subject_verb", "capital")
PAIRS, PROMPTS = 4, 20
SHOWN = 6
"""Features that are named."""


def measure(opened: Opened, name: str) -> dict[str, Any]:
    """Both wordings of a behaviour."""
    began = time.perf_counter()
    found = measure_behaviour(opened, name, pairs=PAIRS, prompts=PROMPTS, nodes=NODES)
    return {**found.to_dict(), "seconds": round(time.perf_counter() - began)}


def figure(value: list[float] | tuple[float, ...]) -> str:
    """A value with its interval."""
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def page(results: Mapping[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [
        "# Do a few graphs' features carry the behaviour elsewhere?",
        "",
        "SmolLM2-135M-Instruct through its transcoders, float32. Made by `python recipes/circuits_faithful.py`.",
        "",
        f"Features, each with the role of its positions (the token that differs from the twin, the last one, or after), are chosen on the graphs of {PAIRS} pairs of the",
        f"template, by influence. On {PROMPTS} held-out prompts of the template and as many of the paraphrase, every MLP then puts out what it did for the twin, but the first *k* of these",
        "features are as for the prompt: *f* is the share of the difference of the two logits that they bring back (all of every MLP brings 1; bootstrap over prompts). *Random*: as many other",
        f"features of the same layers and roles that fired in the graphs' prompts, the mean of {CONTROLS} draws. Attention and the prompt's own tokens are the prompt's throughout, so what they carry alone is in",
        "the nats without MLPs already; errors stay the twin's: *all features* puts every feature of a prompt, chosen or not, and what is missing there to 1 is the errors'. `interp/circuits/held_out.py` opens with the definitions.",
        "",
        "| behaviour | wording | nats, twin's MLPs | nats, own | CPR | CPR, random | CMD | f, all features |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        for wording, m in one["wordings"].items():
            lines.append(
                f"| {name} | {wording} | {m['nothing']:.2f} | {m['whole']:.2f} | {figure(m['cpr'])} | {figure(m['control_cpr'])} | {m['cmd']:.2f} | {figure(m['every'])} |"
            )
    for name, one in results.items():
        template, paraphrase = (one["wordings"][wording] for wording in (TEMPLATE, PARAPHRASE))
        lines += [
            "",
            f"## {name}",
            "",
            f"{one['chosen']:,} features with a role were in the graphs, of {one['fired']:,} that fired there. The first: "
            + "; ".join(one["top"][:SHOWN]).replace("\n", "↵")
            + f". {one['seconds']} s on one thread.",
            "",
            "| k | f, template | random | f, paraphrase | random |",
            "|---|---|---|---|---|",
        ]
        for at, k in enumerate(template["sizes"]):
            cells = (figure(m[what][at]) for m in (template, paraphrase) for what in ("f", "control"))
            lines.append(f"| {k} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Each behaviour that is not measured yet, then the page."""
    results = read_json(RESULTS) if RESULTS.exists() and "--restart" not in sys.argv else {}
    opened = open_circuits(TRANSCODERS)
    for name in BEHAVIOURS:
        if name not in results:
            results[name] = measure(opened, name)
            write_json(RESULTS, results)
            say(f"{name}: {results[name]['seconds']} s")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
