"""What is kept of texts between two tokens, so that going on by one token costs one token: keys and values, or a state.

1.  The prompt runs once. What the family keeps of it is given back to the module with every new token: keys and values
    (attention), `cache_params` (Mamba, xLSTM) or `state` (RWKV).
2.  RecurrentGemma keeps its state in the module. It is put there for a step and taken out again while the step has the
    module for itself, so that callers never see each other's.
3.  Rows of several lengths, in a family that can't leave padding out, go on by themselves, those of a length together; and
    each row alone where rows disturb each other (transformers' RWKV adds one row's last token to all). Edits are made for
    all rows, so that in such a pass they are shown as many.

Axes    B row, T token, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.models.passes import Edit, Passable, Site, hooked

ARGUMENTS = ("past_key_values", "cache_params", "state")
"""By which a module is given what was kept, and gives it."""
INSIDE = ("conv1d_state", "recurrent_states")
"""Attributes of RecurrentGemma's modules that hold what it keeps."""


@runtime_checkable
class Keeping(Passable, Protocol):
    """What keeping needs of a `Model`."""

    @property
    def device(self) -> torch.device: ...
    def accepted(self, options: Mapping[str, Any], /) -> dict[str, Any]: ...


def is_recurrent(module: nn.Module) -> bool:
    """Whether the family keeps states, which unlike keys and values can't be parted by token."""
    return bool(getattr(module, "_is_stateful", False))


def kept_by(model: Keeping) -> str | None:
    """The name of the argument by which the module is given what was kept; None where it has none."""
    return next((name for name in ARGUMENTS if name in model.arguments), None)


@dataclass(frozen=True, eq=False)
class State:
    """What one pass left behind. It is the next step's alone, which writes into it."""

    cache: Any
    inside: tuple[Tensor | None, ...] = ()
    """Of the places inside the module, in their order."""


def step(
    model: Keeping,
    new_BT: Int[Tensor, "B T"],
    real_BT: Bool[Tensor, "B _"],
    prompt_B: Int[Tensor, " B"],
    edits: Sequence[Edit],
    state: State | None,
) -> tuple[Float[Tensor, "B V"], State]:
    """(logits after the last of the new tokens, what is kept of the text so far); `real_BT` is of the whole text."""
    name, width = kept_by(model), new_BT.shape[1]
    assert name is not None
    position_BT = (real_BT.long().cumsum(1) - 1).clamp_min(0)[:, -width:]
    site = Site(new_BT, real_BT[:, -width:], position_BT, prompt_B)
    # A state has padding behind it; keys and values still lie there and are masked in every step.
    mask = {"attention_mask": real_BT.long()} if name == "past_key_values" or state is None else {}
    extra = model.accepted({**mask, "position_ids": position_BT, "logits_to_keep": 1})
    with model.turns.turn(), torch.inference_mode(), hooked(model, {}, edits, site):
        places = _places(model.module)
        cache = state.cache if state is not None else _empty(model.module) if places else None
        _put(places, state.inside if state is not None else ())
        try:
            out = model.module(new_BT, use_cache=True, **{name: cache}, **extra)
            inside = tuple(vars(part)[each] for part, each in places)
        finally:
            _put(places, ())
    return out.logits[:, -1], State(cache if places else getattr(out, name), inside)


def _places(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where the module itself keeps something."""
    return [(part, name) for part in module.modules() for name in INSIDE if name in vars(part)]


def _put(places: Sequence[tuple[nn.Module, str]], inside: Sequence[Tensor | None]) -> None:
    """What is kept, put in its places; nothing there where nothing is given."""
    for (part, name), value in zip(places, inside or [None] * len(places), strict=True):
        vars(part)[name] = value


def _empty(module: nn.Module) -> Any:
    """Keys and values of no text, for a module that writes into them and doesn't give them back."""
    from transformers import DynamicCache

    config: Any = module.config
    return DynamicCache(config=config)


@dataclass(eq=False)
class Rows:
    """Rows that go on token by token from what is kept of each."""

    model: Keeping
    real_BT: Bool[Tensor, "B T"]
    """Of the prompts, padded on the left."""
    edits: Sequence[Edit]
    apart: Literal["", "lengths", "rows"] = "lengths"
    """What goes on by itself: nothing where padding is left out, rows of one length, or each row."""

    def __post_init__(self) -> None:
        self.prompt_B = self.real_BT.sum(1)
        B, T = self.real_BT.shape
        every_B = torch.arange(B, device=self.prompt_B.device)
        groups = [every_B]
        if self.apart == "rows":
            groups = list(every_B.split(1))
        elif self.apart == "lengths":
            groups = [every_B[self.prompt_B == length] for length in self.prompt_B.unique().tolist()]
        longest_G = [int(self.prompt_B[rows_R].max()) for rows_R in groups]
        self.groups = [
            _Group(rows_R, T - longest, _shown(self.edits, rows_R, B))
            for rows_R, longest in zip(groups, longest_G, strict=True)
        ]

    def step(self, new_BT: Int[Tensor, "B N"], real_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        """The logits after the new tokens, which at first are the prompts; `real_BT` is of all tokens so far."""
        whole: Tensor | None = None
        for group in self.groups:
            rows_R = group.rows_R
            real_RT = real_BT[rows_R, group.padding :]
            new_RT = new_BT[rows_R, -real_RT.shape[1] :]
            logits_RV, group.state = step(self.model, new_RT, real_RT, self.prompt_B[rows_R], group.edits, group.state)
            if len(self.groups) == 1:
                return logits_RV
            whole = logits_RV.new_empty(len(new_BT), logits_RV.shape[1]) if whole is None else whole
            whole[rows_R] = logits_RV
        assert whole is not None
        return whole


@dataclass(eq=False)
class _Group:
    """Rows that are one pass."""

    rows_R: Int[Tensor, " R"]
    padding: int
    """Columns that all of them are without."""
    edits: Sequence[Edit]
    state: State | None = None


def _shown(edits: Sequence[Edit], rows_R: Tensor, B: int) -> list[Edit]:
    """The edits of all B rows, for a pass of some of them: the places of the others are filled with its first row."""
    if len(rows_R) == B:
        return list(edits)
    place_B = torch.zeros(B, dtype=torch.long, device=rows_R.device)
    place_B[rows_R] = torch.arange(len(rows_R), device=rows_R.device)

    def shown(edit: Edit) -> Edit:
        def apply(x_RTD: Tensor, site: Site) -> Tensor:
            parts = (site.tokens_BT, site.real_BT, site.position_BT, site.prompt_B)
            tokens_BT, real_BT, position_BT, prompt_B = (part[place_B] for part in parts)
            wide = replace(site, tokens_BT=tokens_BT, real_BT=real_BT, position_BT=position_BT, prompt_B=prompt_B)
            return edit.apply(x_RTD[place_B], wide)[rows_R]

        return Edit(edit.hook_name, apply)

    return [shown(edit) for edit in edits]
