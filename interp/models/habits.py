"""What a family does with texts of several lengths, with what follows, and with a cache: found out by trying.

Families that read their padding are given none.

Axes    B row, T token, L token of the rows of one length.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.models.families import Frame
from interp.models.kept import Keeping, Rows, is_recurrent
from interp.models.passes import Edit, Run, Site, single_pass
from interp.types import InterpError

ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
"""By number type, the largest difference at a hook point that is taken for rounding, as a share of the largest value."""
ROUGH = 0.1
"""The same for other number types."""

GoesOn = Literal["together", "alone", "anew"]
"""How a text is continued by a token: from what is kept of it, in a batch or each row by itself, or by reading all of it."""


@runtime_checkable
class Tryable(Keeping, Protocol):
    """What finding out needs of a `Model`."""

    frame: Frame

    def some_tokens(self, count: int, /) -> Tensor: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def run(
        self,
        tokens_BT: Tensor,
        /,
        *,
        edits: Sequence[Edit] = (),
        logits: bool | None = None,
        real_BT: Tensor | None = None,
        last: int = 0,
    ) -> Run: ...
    def site(
        self, tokens_BT: Tensor, real_BT: Tensor | None = None, prompt_B: Tensor | None = None, /
    ) -> tuple[Site, dict[str, Any]]: ...


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


def goes_on(model: Tryable, *, padded: bool) -> GoesOn:
    """How texts can be continued from what is kept of them, if three tokens and then two more, one by one, give what all five
    give at once; and the last three of them beside padding, if that is left out (`padded`)."""
    for how in ("together", "alone"):
        if _is_cached(model, how == "alone", padded):
            return how
    return "anew"


def _is_cached(model: Tryable, alone: bool, padded: bool) -> bool:
    some = model.some_tokens(5)
    tokens_BT = torch.cat([some, some.flip(1)])
    real_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    real_BT[1, :2] = not padded
    try:
        logits_BV = _continued(
            model, tokens_BT, Rows(model, real_BT[:, :3], (), "rows" if alone else "" if padded else "lengths")
        )
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # it takes or gives what is kept in another way
    whole = model.run(tokens_BT, real_BT=real_BT).logits
    assert whole is not None
    return all(map(_alike, logits_BV, whole[:, -1]))


def is_cached_at(model: Tryable, hook_name: str, *, padded: bool) -> bool:
    """Whether an edit at the hook point finds, when a text is gone on with by a token, what a whole pass has at that token.

    A hook point that does not see all tokens (an expert's, a pattern of attention) can't be told so; of states there is
    then nothing known, and keys and values are trusted.
    """
    tokens_BT = model.some_tokens(5)
    seen: list[Tensor] = []

    def note(x: Tensor, site: Site) -> Tensor:
        seen.append(x)
        return x

    model.run(tokens_BT, edits=[Edit(hook_name, note)], logits=True)
    whole = list(seen)
    if len(whole) != 1 or whole[0].shape[:2] != tokens_BT.shape:
        return padded and not is_recurrent(model.module)
    real_BT = torch.ones_like(tokens_BT[:, :4], dtype=torch.bool)
    _continued(model, tokens_BT, Rows(model, real_BT, [Edit(hook_name, note)]), seen.clear)
    last = whole[0][:, -1:]
    if len(seen) != 1 or seen[0].shape != last.shape:
        return False
    now, last = seen[0].float().nan_to_num(), last.float().nan_to_num()  # none at an expert's other tokens
    off = float((now - last).abs().max())
    return off <= ROUNDING.get(model.dtype, ROUGH) * float(last.abs().max())


def _continued(model: Tryable, tokens_BT: Tensor, rows: Rows, before: Callable[[], None] = lambda: None) -> Tensor:
    """The last logits of tokens of which the first come at once, as many as the rows' prompts have, and the rest one by one,
    `before` called before each."""
    first, real_BT = rows.real_BT.shape[1], rows.real_BT
    logits_BV = rows.step(tokens_BT[:, :first], real_BT)
    for end in range(first + 1, tokens_BT.shape[1] + 1):
        before()
        real_BT = torch.nn.functional.pad(real_BT, (0, 1), value=True)
        logits_BV = rows.step(tokens_BT[:, end - 1 : end], real_BT)
    return logits_BV


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
