"""Finished graphs of SmolLM2-135M-Instruct, one of each behaviour, with their strongest edges tried by intervention.

    python recipes/smollm2_graphs.py    # into saes/smollm2-135m-instruct/graphs; about ten minutes on two cores

The prompts were chosen before any graph was looked at: one a behaviour, whose target the model prefers to its
distractor (of French by .2 nats only). `benchmarks/results/circuits_checked.json`
has how many of the edges held.
"""

import json
from pathlib import Path

import smollm2 as embedded

from interp import places
from interp.commands.circuits import check_circuit, circuit
from interp.render.terminal import say
from interp.statistics import wilson

PROMPTS = {
    "capital": ("The capital of the country that contains Lyon is", " Paris", " London"),
    "ioi": ("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
    "subject-verb": ("The keys to the cabinet", " are", " is"),
    "greater-than": ("The war lasted from the year 1745 to the year 17", "5", "2"),
    "pronoun": ("Amanda is a very good friend, isn't", " she", " he"),
    "french": ("Votre piscine est", " verte", " vert"),
}
"""Prompt, target, distractor."""
VERDICTS = ("confirmed", "refuted", "undecided")
KEEP, EDGES, CHECKED = 0.65, 0.7, 50
INTO = embedded.INTO / "graphs"


def main() -> None:
    """Make each graph and check it; those that are there are kept."""
    results = {}
    for name, (prompt, target, distractor) in PROMPTS.items():
        file = INTO / f"{name}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            circuit(prompt, target=target, distractor=distractor, keep=KEEP, edges=EDGES, into=str(file))
        made = circuit(str(file))
        if len(made.graph.checks) < CHECKED:
            checked = check_circuit(str(file), count=CHECKED)
            made = circuit(str(file))
            say(f"{name}: {checked.sentence()}")
        ways = {"direct": [c.verdict for c in made.graph.checks], "live": [c.live_verdict for c in made.graph.checks]}
        results[name] = {
            "prompt": prompt,
            "question": made.graph.about["question"],
            **{key: round(value, 4) for key, value in made.scores.items()},
            "checked": len(made.graph.checks),
            **{way: {v: said.count(v) for v in VERDICTS} for way, said in ways.items()},
            "kilobytes": Path(file).stat().st_size // 1024,
        }
    count = sum(each["checked"] for each in results.values())
    confirmed = {}
    for way in ("direct", "live"):
        good = sum(each[way]["confirmed"] for each in results.values())
        share, low, high = wilson(good, count)
        confirmed[way] = {"of": count, "share": round(share, 4), "interval": [round(low, 4), round(high, 4)]}
    found = {"graphs": results, "confirmed": confirmed}
    places.write_json(embedded.ROOT / "benchmarks/results/circuits_checked.json", found)
    say(json.dumps(found["confirmed"]))


if __name__ == "__main__":
    main()
