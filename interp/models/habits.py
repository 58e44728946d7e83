"""What a family does with texts of several lengths, with what follows, and with a cache: found out by trying.

Families that read their padding are given none.

Axes    B row, T token, L token of the rows of one length.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.models.families import Frame
from interp.models.passes import Edit, Passable, Run, Site, single_pass
from interp.types import InterpError


@runtime_checkable
class Tryable(Passable, Protocol):
    """What finding out needs of a `Model`."""

    frame: Frame

    def some_tokens(self, count: int, /) -> Tensor: ...
    @property
    def device(self) -> torch.device: ...
    def run(self, tokens_BT: Tensor, /) -> Run: ...
    def site(
        self, tokens_BT: Tensor, real_BT: Tensor | None = None, prompt_B: Tensor | None = None, /
    ) -> tuple[Site, dict[str, Any]]: ...
    def cached_step(
        self, new_BT: Tensor, real_BT: Tensor, prompt_B: Tensor, edits: Sequence[Edit], cache: Any, /
    ) -> tuple[Tensor, Any]: ...


def is_masked(model: Tryable) -> bool:
    """Whether three tokens beside padding, on the side where the family has it, give what they give alone."""
    few, right = model.some_tokens(3), model.frame.alone
    padded_BT = torch.nn.functional.pad(few, (0, 2) if right else (2, 0), value=model.frame.separator)
    real_BT = torch.tensor([[True] * 3 + [False] * 2 if right else [False] * 2 + [True] * 3], device=model.device)
    site, extra = model.site(padded_BT, real_BT)
    made = single_pass(model, site, extra, (), (), logits=True, last=5 if right else 3).logits
    return _alike(made if made is None else made[:, :3], model.run(few).logits)


def is_causal(model: Tryable) -> bool:
    """Whether the first three of five tokens give what they give alone."""
    some = model.some_tokens(5)
    logits = model.run(some).logits
    assert logits is not None
    return _alike(model.run(some[:, :3]).logits, logits[:, :3])


def is_cached(model: Tryable) -> bool:
    """Whether three tokens and then two more, one by one, give what all five give at once."""
    some = model.some_tokens(5)
    real, cache, logits_BV = torch.ones_like(some, dtype=torch.bool), None, None
    for start, end in ((0, 3), (3, 4), (4, 5)):
        prompt_B = torch.full((1,), 3, device=some.device)
        logits_BV, cache = model.cached_step(some[:, start:end], real[:, :end], prompt_B, (), cache)
        if cache is None:
            return False
    whole = model.run(some).logits
    assert whole is not None
    return _alike(logits_BV, whole[:, -1])


def _alike(a: Tensor | None, b: Tensor | None) -> bool:
    """Equal but for rounding, of bfloat16 through many layers at worst."""
    assert a is not None
    assert b is not None
    return float((a.float() - b.float()).abs().mean()) <= 0.1 * float(b.float().std())


def by_length(model: Tryable, site: Site, read: Sequence[str], edits: Sequence[Edit], logits: bool, last: int) -> Run:
    """`Model.run` for a family that reads its padding: every row from its first token on, one pass for each length.

    All rows are in every pass, so that edits find theirs; a row is right in the pass of its own length, and what it gives
    in another is left out. Raises InterpError for a hook point that fires on a part of the tokens, or several times: its
    rows cannot be told apart.
    """
    B, T = site.tokens_BT.shape
    length_B = site.real_BT.sum(1)
    whole: dict[str, Tensor] = {}
    for length in length_B.unique().tolist():
        own, _ = model.site(site.tokens_BT[:, T - length :], None, site.prompt_B.clamp_max(length))
        own = replace(own, asked=site.asked)
        run = single_pass(model, own, {}, read, edits, logits=logits, last=last)
        rows = length_B == length
        for name in run.firings:
            x = run.activations[name]
            if x.shape[:2] != (B, length):
                raise InterpError(
                    f"{name} of {model.name} does not see every token of every text at once, and this family reads padding "
                    "like text; run texts of one length together."
                )
            _put(whole, name, x, rows, T)
        if run.logits is not None:
            _put(whole, "", run.logits, rows, last or T)
    return Run({name: (whole[name],) for name in dict.fromkeys(read)}, whole.get(""))


def _put(whole: dict[str, Tensor], name: str, x_BL: Tensor, rows_B: Tensor, width: int) -> None:
    """Write the chosen rows at the right end of the whole, which is begun with zeros."""
    to = whole.setdefault(name, x_BL.new_zeros(len(x_BL), width, *x_BL.shape[2:]))
    to[rows_B, width - x_BL.shape[1] :] = x_BL[rows_B]
