"""Dictionaries of one model by the hook points that they read: the transcoders of all layers, SAEs at three depths.

`checkpoint.open_bundle` opens one from folders; here it knows no files.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from torch import Tensor

from interp.sae.dictionary import Dictionary, join
from interp.sae.kernels import Active
from interp.types import Hook, InterpError, unknown

D = TypeVar("D", bound=Dictionary)
IN_BLOCK = (
    "hook_in", "hook_resid_pre", "ln1", "attn", "hook_attn_out", "hook_resid_mid", "ln2", "mlp.hook_in", "mlp.hook_pre",
    "mlp", "hook_mlp_out", "hook_out", "hook_resid_post",
)  # fmt: skip
"""Beginnings of hook points' names inside a block, in the order in which a pass comes to them."""


class Bundle(Generic[D]):
    """Dictionaries of one model, each at its own hook points; iterates in the order in which a pass comes to these."""

    def __init__(self, dictionaries: Iterable[D], *, models: Sequence[str] = (), order: Sequence[str] = ()) -> None:
        """`models` says for each dictionary which model it was made for (a hash, or any name; empty: not known).
        `order` has the model's hook points by name, for models whose names do not tell it.

        Raises InterpError when there is none, when two read one hook point or have one name, when one of several has
        no hook point, and when they are of different models.
        """
        given = list(dictionaries)
        if not given:
            raise InterpError("a bundle needs at least one dictionary.")
        _check_models(given, models)
        place = {name: number for number, name in enumerate(order)}
        ordered = sorted(given, key=lambda one: (place.get(one.reads[0].name, len(place)), _depth(one.reads[0])))
        self._by_name: dict[str, D] = {}
        self._by_hook: dict[str, D] = {}
        for one in ordered:
            if one.name in self._by_name:
                raise InterpError(f"two dictionaries are named {one.name}; a bundle tells them apart by name.")
            self._by_name[one.name] = one
            for hook in map(str, one.reads):
                if not hook:
                    raise InterpError(f"{one.name} does not say which hook point it reads; name it (`SAE.set_hooks`).")
                if hook in self._by_hook:
                    raise InterpError(
                        f"{self._by_hook[hook].name} and {one.name} both read {hook}; a bundle has one dictionary a hook "
                        "point, so leave one of them out."
                    )
                self._by_hook[hook] = one

    @property
    def names(self) -> tuple[str, ...]:
        """Of its dictionaries, in their order."""
        return tuple(self._by_name)

    @property
    def reads(self) -> tuple[Hook, ...]:
        """Every hook point that one of its dictionaries reads, with its width."""
        return tuple(hook for one in self for hook in one.reads)

    @property
    def writes(self) -> tuple[Hook, ...]:
        """Every hook point that one of its dictionaries writes, with its width, each once."""
        return tuple(dict.fromkeys(hook for one in self for hook in one.writes))

    def __getitem__(self, hook: Hook | str) -> D:
        """The dictionary that reads the hook point; InterpError when none does."""
        if str(hook) not in self._by_hook:
            raise unknown("dictionary at hook point", hook, self._by_hook)
        return self._by_hook[str(hook)]

    def __contains__(self, hook: Hook | str) -> bool:
        return str(hook) in self._by_hook

    def __iter__(self) -> Iterator[D]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str) -> D:
        """The dictionary of that name; InterpError when there is none."""
        if name not in self._by_name:
            raise unknown("dictionary", name, self._by_name)
        return self._by_name[name]

    def active(self, rows: Mapping[str, Tensor]) -> dict[str, Active]:
        """The active entries of every dictionary, by its name, from activations (B, W) by hook point.

        `rows` is what `Model.run` gives for `reads`, positions as rows. Raises InterpError where a hook point is missing.
        """
        return {one.name: one.active(join(one, rows)) for one in self}

    def __repr__(self) -> str:
        at = [f"{one.name} at {' and '.join(map(str, one.reads))}" for one in self]
        return f"Bundle({', '.join(at)})"


def _check_models(dictionaries: Sequence[Dictionary], models: Sequence[str]) -> None:
    if models and len(models) != len(dictionaries):
        raise InterpError(f"{len(dictionaries)} dictionaries were given with the models of {len(models)}.")
    of = {model: one.name for one, model in zip(dictionaries, models, strict=False) if model}
    if len(of) > 1:
        (a, first), (b, second), *_ = of.items()
        raise InterpError(
            f"{first} is of another model ({a[:16]}) than {second} ({b[:16]}); a bundle is of one model, so leave one out."
        )


def _depth(hook: Hook) -> tuple[int, int, int, str]:
    """Where a pass comes to the hook point, by its name in TransformerLens' spelling: embeddings, blocks, the rest."""
    inside = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook.name)
    if inside is None:
        return hook.model, -1 if "embed" in hook.name and "unembed" not in hook.name else 2**31, 0, hook.name
    starts = [n for n, name in enumerate(IN_BLOCK) if re.match(rf"{re.escape(name)}(\.|$)", inside[2])]
    return hook.model, int(inside[1]), min(starts, default=len(IN_BLOCK)), inside[2]
