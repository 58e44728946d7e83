"""Recorded runs made again."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from interp.steering import Replay, Sampling, SteerBatch, SteerRun, StrengthSweep, StrengthSweepConfig, compare
from interp.steering.edits import from_dict
from interp.steering.replay import by_this_rule, check_record
from interp.steering.sampling import check_seed, check_whole
from interp.types import InterpError
from interp.workbench.opening import Opened
from interp.workbench.steering import steer, steer_many, sweep


def replay(wb: Opened, record: Mapping[str, Any]) -> Replay:
    """Run a recorded run, batch or sweep again, and say whether it came out the same.

    Raises InterpError when the record is none, or was made with other weights.
    """
    then = check_record(record)
    for key, mine in (("sae_sha256", wb.card.sae_sha256), ("model_sha256", wb.card.model_sha256)):
        if then.get(key) != mine:
            raise InterpError(
                f"the record was made with {then.get('sae')} on {then.get('model')}, {key} "
                f"{str(then.get(key))[:12]}…, and here it is {mine[:12]}…; open the SAE it was made with."
            )
    again, threads = _request(wb, record), torch.get_num_threads()
    torch.set_num_threads(then["threads"])
    try:
        return compare(record, asdict(again()))
    finally:
        torch.set_num_threads(threads)


def _request(wb: Opened, record: Mapping[str, Any]) -> Callable[[], SteerRun | SteerBatch | StrengthSweep]:
    """What a record asks for, read whole but not yet run; InterpError when it cannot be read."""

    def part(key: str, kind: type) -> Any:
        if not isinstance(record[key], kind):
            raise TypeError(f"{key} is {record[key]!r}")
        return record[key]

    try:
        sampling = asdict(Sampling.of(part("sampling", dict)))
        if record["kind"] == "steer":
            edits = [from_dict(edit) for edit in part("edits", list)]
            return partial(steer, wb, part("prompt", str), edits, **sampling)
        if record["kind"] == "batch":
            prompts, seeds = part("prompts", list), [check_seed(seed) for seed in part("seeds", list)]
            variants = [[from_dict(edit) for edit in edits] for edits in part("variants", list)]
            return partial(steer_many, wb, prompts, variants, seeds=seeds, **sampling)
        source: Any = from_dict(record["subject"]).feature
        config = StrengthSweepConfig(**part("config", dict))
        given: Any = {"largest": float(record["largest"]), "words": part("words", str)}
        if not by_this_rule(record):
            given["target_tokens"] = [check_whole("a target token", t, 0, 2**31) for t in part("target_tokens", list)]
        return partial(sweep, wb, source, config=config, **given, **sampling)
    except (KeyError, TypeError, ValueError) as error:
        raise InterpError(f"the record is not whole: {error}.") from None
