"""Circuits on the command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp.cli.app import Asked, register
from interp.render.terminal import table, tell
from interp.render.words import counted

MEANS = {
    "replacement": "replacement score: influence that reaches tokens, not errors",
    "completeness": "completeness: share of inputs that errors do not bring",
    "left_out": "influence of what is active and was not attributed",
    "errors": "errors among the nodes kept, features or neurons being the others",
}


def _shown(found: Any, asked: Asked) -> None:
    about = found.to_dict()
    of = [str(about[name]) for name in ("model", "question") if about[name]]
    tell(f"{about['prompt']!r}" + (f"  ({', '.join(of)})" if of else ""))
    if about["over"]:
        tell(f"nodes are {about['over']}")
    kept = about["kept"]
    tell(
        f"{counted(len(about['tokens']), 'token')}; kept are {counted(kept['features'], about['unit'])}, {counted(kept['errors'], 'error')} and "
        f"{counted(kept['edges'], 'edge')}.\n"
    )
    for name, value in found.scores.items():
        tell(f"{value:7.1%}  {MEANS.get(name, name)}")
    tell("")
    table(["logit", "weight"], [[token, f"{weight:.3f}"] for token, weight in found.logits()], wide=asked["wide"])
    tell("")
    rows = [[each["name"], f"{each['activation']:.3g}", f"{each['influence']:.3f}"] for each in about["features"]]
    table([f"{about['unit']}s and errors", "activation", "influence"], rows, wide=asked["wide"])
    tell("")
    rows = [[each["source"], each["target"], f"{each['effect']:+.3g}"] for each in about["edges"]]
    table(["edge from", "to", "effect"], rows, wide=asked["wide"])
    if found.file and asked["into"]:
        tell(f"\nthe graph is in {found.file}")


register(
    "circuit",
    _shown,
    "interp circuit 'The capital of France is' --target ' Paris' --distractor ' London' --into paris.json",
    face=("as_json", "background", "wide"),
)


def _checked(found: Any, asked: Asked) -> None:
    _outcomes(found.rows, {"source": "edge from", "target": "to", "edge": "edge"}, asked)
    _outcomes(found.tried, {"moved": "moved", "target": "target", "predicted": "predicted"}, asked)
    tell(f"\n{found.sentence()}")
    tell(f"the graph, with its checks, is in {found.file}")


def _outcomes(rows: Sequence[Mapping[str, Any]], first: Mapping[str, str], asked: Asked) -> None:
    """A table of what was tried; `first` are its first columns: two texts and what the graph says directly."""
    if not rows:
        return
    heads = [*first.values(), "measured", "controls' 95th", "worst", "verdict", "all paths", "live", "verdict, live"]
    one, other, said = first
    lines = [
        [
            *(row[one], row[other], f"{row[said]:+.3g}", f"{row['measured']:+.3g}", f"{row['control']:.2g}"),
            *(
                f"{row['adversarial']:.2g}",
                row["verdict"],
                f"{row['whole']:+.3g}",
                f"{row['live']:+.3g}",
                row["live_verdict"],
            ),
        ]
        for row in rows
    ]
    table(heads, lines, wide=asked["wide"])


register(
    "check-circuit",
    _checked,
    "interp check-circuit paris.json --count 20",
    face=("as_json", "background", "wide"),
)


def _carried(found: Any, asked: Asked) -> None:
    tell(f"{found.sentence()}\n")
    rows = [
        [
            each.head,
            f"{each.brought:+.3g}",
            f"{each.through:+.3g}",
            f"{each.attention:.2f}",
            ", ".join(f"{name} {value:+.2g}" for name, value in each.query),
            ", ".join(f"{name} {value:+.2g}" for name, value in each.key),
        ]
        for each in found.heads
    ]
    heads = ["head", "brought", "all ways", "attention", "looked because of (query)", "at (key)"]
    table(heads, rows, wide=asked["wide"])


register(
    "circuit-edge",
    _carried,
    "interp circuit-edge paris.json '12_340_5->20_77_9'",
    face=("as_json", "wide"),
)


def _behaviour(found: Any, asked: Asked) -> None:
    about = found.to_dict()
    tell(
        f"{about['behaviour']} ({about['model']}): {counted(about['chosen'], 'feature')} of {counted(about['graphs'], 'graph')}, of "
        f"{about['fired']:,} that fired there; the first are\n"
    )
    table(["feature (role)"], [[each] for each in about["top"]], wide=asked["wide"])
    for wording, one in found.wordings.items():
        tell(
            f"\n{counted(one.n, 'held-out prompt')} of the {wording}; {one.nothing:+.2f} nats with the twin's MLPs, {one.whole:+.2f} with their own"
        )
        rows = [
            [str(k), *(f"{v:.2f} ({low:.2f} to {high:.2f})" for v, low, high in both)]
            for k, *both in zip(one.sizes, one.f, one.control, strict=True)
        ]
        table(["k", "f", "random"], rows, wide=asked["wide"])
        tell(
            f"CPR {one.cpr[0]:.2f} ({one.cpr[1]:.2f} to {one.cpr[2]:.2f}), random {one.control_cpr[0]:.2f}; CMD {one.cmd:.2f}; all features {one.every[0]:.2f}"
        )
    tell(f"\n{found.sentence()}")


register(
    "circuit-faithfulness",
    _behaviour,
    "interp circuit-faithfulness subject_verb --prompts 20",
    face=("as_json", "background", "wide"),
)


def _compared(found: Any, asked: Asked) -> None:
    about = found.to_dict()
    ranks = about["ranks"]
    table(
        ["overlap of", "share", "by rank"],
        [
            [what, f"{value:.2f}", f"{ranks[what]:.2f}" if what in ranks else ""]
            for what, value in about["overlap"].items()
        ],
        wide=asked["wide"],
    )
    for each in about["left_out"]:
        tell(f"not compared: {each}")
    if about["scores"]:
        tell("")
        rows = [[MEANS.get(name, name), f"{a:.1%}", f"{b:.1%}"] for name, (a, b) in about["scores"].items()]
        table(["score", "one", "other"], rows, wide=asked["wide"])
    for what in ("kinds", "layers", "positions", "words", "features"):
        if about[what]:
            tell("")
            rows = [[str(key), f"{a:.1%}", f"{b:.1%}"] for key, a, b in about[what]]
            table([f"influence of {what}", "one", "other"], rows, wide=asked["wide"])


register(
    "compare-circuits",
    _compared,
    "interp compare-circuits paris.json paraphrase.json",
    face=("as_json", "wide"),
)
