"""Continuing texts token by token: sampling, stopping, from what is kept of them where a family does (`kept`).

Axes    B row, T token, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.models.kept import Keeping, Rows
from interp.models.passes import Edit, Run
from interp.types import InterpError

NUCLEUS = 512
"""How many of the likeliest tokens are sorted first when drawing with `top_p`; a row that needs more sorts all."""


@runtime_checkable
class Continuing(Keeping, Protocol):
    """What continuing texts needs of a `Model`."""

    n_ctx: int
    ends: frozenset[int]

    @property
    def generates(self) -> bool: ...
    @property
    def reads(self) -> str: ...
    def padded(self, prompts: Sequence[Sequence[int]], /) -> tuple[Tensor, Tensor]: ...
    def decode(self, tokens: Sequence[int], /) -> str: ...
    def rows(self, real_BT: Tensor, edits: Sequence[Edit], /) -> Rows | None: ...
    def run(
        self,
        tokens_BT: Tensor,
        /,
        *,
        edits: Sequence[Edit],
        logits: bool,
        real_BT: Tensor,
        last: int,
        prompt_B: Tensor,
    ) -> Run: ...


def choose(logits_BV: Tensor, temperature: float, top_p: float, draws: Sequence[torch.Generator]) -> list[int]:
    """One token a row: the likeliest, or a draw from the smallest set with probability `top_p`.

    One uniform number a row and step, so that two runs with one seed stay comparable whatever they drew before.
    """
    if temperature <= 0:
        return [int(token) for token in logits_BV.argmax(-1).tolist()]
    probability_BV = (logits_BV.float().cpu() / temperature).softmax(-1)
    point_B = torch.stack([torch.rand((), generator=draw) for draw in draws])
    if top_p >= 1:
        mass_BV = probability_BV.double().cumsum(-1)
        drawn_B = torch.searchsorted(mass_BV, (point_B.double() * mass_BV[:, -1])[:, None], right=True).squeeze(1)
        return [int(token) for token in drawn_B.clamp_max(logits_BV.shape[1] - 1).tolist()]
    top = probability_BV.topk(min(NUCLEUS, logits_BV.shape[1]), dim=-1)
    chosen = []
    for row, point in enumerate(point_B):
        values, order = top.values[row], top.indices[row]
        if values.sum() < top_p:
            values, order = probability_BV[row].sort(descending=True)
        kept = values.cumsum(-1) - values < top_p
        kept[0] = True
        mass = (values * kept).cumsum(-1)
        chosen.append(int(order[min(int((mass <= point * mass[-1]).sum()), len(order) - 1)]))
    return chosen


def check(
    model: Continuing, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float, top_p: float
) -> None:
    """Raises InterpError when these prompts cannot be continued so: empty, too long, or no such sampling."""
    if not prompts or min(map(len, prompts)) == 0:
        raise InterpError("there is no prompt to continue; give at least one token.")
    longest = max(map(len, prompts))
    if max_new_tokens < 1:
        raise InterpError(f"{max_new_tokens} new tokens cannot be generated; ask for at least 1.")
    if longest + max_new_tokens > model.n_ctx:
        raise InterpError(
            f"a prompt of {longest:,} tokens and {max_new_tokens:,} new ones exceed the {model.n_ctx:,} "
            f"that {model.name} reads; shorten one of them."
        )
    if not 0 <= temperature < float("inf"):
        raise InterpError(f"the temperature is {temperature}; it must be 0 (the likeliest token) or more.")
    if not 0 < top_p <= 1:
        raise InterpError(f"top_p is {top_p}; it must be above 0 and at most 1.")
    if not model.generates:
        if model.reads != "text":
            raise InterpError(f"{model.name} reads {model.reads}, so it continues nothing; `interp ablate` edits it.")
        raise InterpError(
            f"{model.name} reads a text in both directions, so it cannot continue one; read its features on whole texts."
        )


def generators(seed: int | Sequence[int], rows: int) -> list[torch.Generator]:
    """One for each row: seeded by (seed, row) for one seed, by its own seed as the first row would be for several.

    Raises InterpError when there are several seeds and not one a row.
    """
    if not isinstance(seed, int) and len(seed) != rows:
        raise InterpError(f"{len(seed)} seeds were given for {rows} prompts; give one each.")
    each = range(rows) if isinstance(seed, int) else [0] * rows
    seeds = [seed] * rows if isinstance(seed, int) else seed
    return [torch.Generator().manual_seed(s * 1_000_003 + row) for s, row in zip(seeds, each, strict=True)]


def steps(
    model: Continuing,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    edits: Sequence[Edit],
    choose: Callable[[Tensor], list[int]],
    stop: Sequence[str],
) -> Iterator[list[int | None]]:
    """The next token of each row, step by step. A step has the model for itself; between two, others have it."""
    tokens_BT, real_BT = model.padded(prompts)
    prompt_B = real_BT.sum(1)
    ended = [False] * len(prompts)
    answers: list[list[int]] = [[] for _ in prompts]
    rows = model.rows(real_BT, edits)
    new_BT = tokens_BT
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            if rows is not None:
                logits_BV = rows.step(new_BT, real_BT)
            else:  # the whole text again: slower by its length, and right for any family
                run = model.run(tokens_BT, edits=edits, logits=True, real_BT=real_BT, last=1, prompt_B=prompt_B)
                assert run.logits is not None
                logits_BV = run.logits[:, -1]
            chosen = choose(logits_BV)
        yield [None if over else token for over, token in zip(ended, chosen, strict=True)]
        for row, token in enumerate(chosen):
            answers[row].append(token)
            over = token in model.ends or (bool(stop) and _stops(model, answers[row], stop))
            ended[row] = ended[row] or over
        if all(ended):
            return
        new_BT = torch.tensor(chosen, device=model.device)[:, None]
        tokens_BT = torch.cat([tokens_BT, new_BT], 1)
        real_BT = torch.cat([real_BT, torch.ones_like(new_BT, dtype=torch.bool)], 1)


def _stops(model: Continuing, answer: list[int], stop: Sequence[str]) -> bool:
    """Whether the last tokens hold one of the strings."""
    text = model.decode(answer[-4 * max(map(len, stop)) - 4 :])
    return any(each in text for each in stop)
