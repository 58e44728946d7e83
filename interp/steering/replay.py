"""Records of runs read, and compared with the same request run anew."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp import places
from interp.steering.sampling import check_whole
from interp.steering.steered import FORMAT
from interp.types import InterpError


def check_record(record: object) -> Mapping[str, Any]:
    """The record's environment; InterpError when this is no record of a run, or of another format."""
    then = record.get("environment") if isinstance(record, Mapping) else None
    kind = record.get("kind") if isinstance(record, Mapping) else None
    if not isinstance(then, Mapping) or kind not in ("steer", "batch", "sweep"):
        raise InterpError("this file is no record of a steering run; `interp steer --record FILE` writes one.")
    if then.get("format") != FORMAT:
        raise InterpError(
            f"the record has format {then.get('format')!r}, and this version of interp replays format {FORMAT}; "
            "make the run again to record it."
        )
    for key, type_ in (("sae", str), ("versions", Mapping)):
        if not isinstance(then.get(key), type_):
            raise InterpError(
                f"the record is not whole: its environment has {key} {then.get(key)!r}; record the run again."
            )
    check_whole("the record's threads", then.get("threads"), 1, 1024)
    return then


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Whether a recorded run came out the same again."""

    identical: bool
    difference: str
    """Where it first differs; empty when it does not."""
    environment: list[str]
    """What of the machine and its libraries is not as recorded."""

    def sentence(self) -> str:
        """The answer in words."""
        if self.identical:
            return "identical: every recorded token and number came out again."
        because = f" Not as recorded: {'; '.join(self.environment)}." if self.environment else ""
        return f"it first differs at {self.difference}.{because}"


def compare(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> Replay:
    """The record against the same request run anew; what identifies the machine is told apart from results."""
    then, now = dict(recorded), json.loads(places.strict_json(again))
    before, after = then.pop("environment", {}), now.pop("environment", {})
    sweep = then.get("kind") == "sweep"
    older = sweep and not by_this_rule(then)
    if older:
        then.pop("verdict", None)
    if sweep and "window" not in then:  # made before text had to stay text
        _forget_fluency(then, now)
    changed = [
        f"{key} {before.get(key)} is {after.get(key)} here"
        for key in sorted({*before, *after})
        if key != "versions" and before.get(key) != after.get(key)
    ]
    changed += ["its verdict is by an earlier rule and is not compared"] if older else []
    old, new = before.get("versions", {}), after.get("versions", {})
    changed += [f"{key} {old.get(key)} is {new.get(key)} here" for key in sorted(old) if old.get(key) != new.get(key)]
    difference = first_difference(then, now)
    return Replay(identical=not difference, difference=difference, environment=changed)


def by_this_rule(record: Mapping[str, Any]) -> bool:
    """Whether a sweep's verdict, and the tokens that nobody named for it, are by the rule of now; before, tokens were the logit lens'."""
    return "targets_by" in record


def _forget_fluency(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Take from a sweep made anew what records did not have at first."""
    now.pop("window", None)
    series = now.get("series", {}).values()
    for point in [now.get("baseline", {}), *(point for points in series for point in points)]:
        point.pop("perplexity_ratio", None)


def first_difference(recorded: Any, again: Any, path: str = "") -> str:
    """The place of the first unequal value in two JSON values, with both; empty when they are equal.

    What a record does not speak of, for it is older than the field, cannot differ.
    """
    if isinstance(recorded, dict) and isinstance(again, dict):
        # Token ids before the texts and numbers that follow from them.
        for key in sorted(recorded, key=lambda key: ("tokens" not in key, key != "outputs", key)):
            difference = first_difference(recorded.get(key), again.get(key), f"{path}.{key}" if path else key)
            if difference:
                return difference
        return ""
    if isinstance(recorded, list) and isinstance(again, list):
        for place, (a, b) in enumerate(zip(recorded, again, strict=False)):
            difference = first_difference(a, b, f"{path}[{place}]")
            if difference:
                return difference
        if len(recorded) != len(again):
            return f"{path}: {len(recorded)} entries recorded, {len(again)} now"
        return ""
    return "" if recorded == again else f"{path}: {recorded!r} recorded, {again!r} now"
