"""Stores of several models over the same tokens, read side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.activations.store import ActivationStore
from interp.types import InterpError


@dataclass(frozen=True, eq=False)
class StoresTogether(ActivationStore):
    """Stores of several models over the same tokens, as one: `2:blocks.3.hook_resid_post` is that of the second."""

    parts: tuple[ActivationStore, ...] = ()

    @staticmethod
    def of(stores: Sequence[ActivationStore]) -> "StoresTogether":
        """Raises InterpError, naming what differs, when the stores are not of the same tokens."""
        first = stores[0].recipe
        for store in stores[1:]:
            for key in ("tokens_sha256", "positions", "separator", "block"):
                if store.recipe[key] != first[key]:
                    raise InterpError(
                        f"{store.where} and {stores[0].where} differ in {key}; models can be read side by side over the "
                        "same tokens only: harvest the same text, with models that share a tokenizer."
                    )
            if store.blocks.items_sha256() != stores[0].blocks.items_sha256():
                raise InterpError(
                    f"{store.where} and {stores[0].where} differ in the pictures, clips or items that they are of; harvest the "
                    "same ones with both models."
                )
        several = {
            key: " + ".join(str(store.recipe[key]) for store in stores)
            for key in ("model", "model_sha256", "source", "dtype", "attention")
        }
        hooks = [f"{i}:{hook}" for i, store in enumerate(stores, 1) for hook in store.recipe["hooks"]]
        shards = [shards[0] | {"parts": shards} for shards in zip(*(store.shards for store in stores), strict=True)]
        return StoresTogether(stores[0].folder, first | several | {"hooks": hooks}, shards, parts=tuple(stores))

    def head(self, shards: int) -> "StoresTogether":
        return StoresTogether.of([store.head(shards) for store in self.parts])

    def mixing(self, shards: int) -> None:
        for part in self.parts:
            part.mixing(shards)

    def read(self, shard: dict[str, Any], key: str) -> Tensor:
        norm, name = ("norm/", key.removeprefix("norm/")) if key.startswith("norm/") else ("", key)
        number, hook = name.split(":", 1)
        which = int(number) - 1
        return self.parts[which].read(shard["parts"][which], norm + hook)


def open_stores(folders: str | Path) -> ActivationStore:
    """The store in a folder or at a URL, or those in several joined by "+", side by side."""
    names = str(folders)
    parts = [name.strip() for name in names.split("+")]
    here = [name for name in (names, *parts) if (Path(name) / "manifest.json").exists()]
    if len(parts) == 1 or names in here or (names.count("://") == 1 and not here):  # a name may have a + in it
        return ActivationStore.open(names)
    return StoresTogether.of([ActivationStore.open(name) for name in parts])
