"""A module of somebody's own as a `Model`: a network on rows of numbers, a CNN, a block of a diffusion model.

    corpus = interp.open_corpus(x)                                  # an array whose first axis is the items
    model = interp.open_module(net, x, name="digits")
    interp.harvest(model, corpus, ["hidden"], 100_000, "acts")      # `hidden` as net.named_modules() calls it

From there on it is a model as any other: train, index, search, ablate, edit. `families/own.py` says what its positions are.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from interp.device import resolve_device
from interp.models.families import Frame, Places
from interp.models.families.own import (
    FIRST,
    NUMBERS,
    Call,
    Items,
    Layout,
    as_given,
    first_tensor,
    grid_of,
    own_family,
    place_words,
    points,
)
from interp.models.model import Model
from interp.models.randomised import read_name
from interp.render.look import NO_PLACE
from interp.types import InterpError, unknown

OWN = "module:"
"""What the source of such a model begins with: no name opens it."""


@runtime_checkable
class _Named(Protocol):
    @property
    def text(self) -> str: ...


@runtime_checkable
class HasItems(Protocol):
    """A corpus of items."""

    def documents(self) -> Iterable[_Named]:
        """Its items, each named by its file and number."""


def open_module(
    module: nn.Module,
    items: "Tensor | np.ndarray | str | Path | HasItems",
    *,
    name: str | None = None,
    at: str | None = None,
    call: Call | None = None,
    words: Sequence[str] | None = None,
    device: str = "auto",
) -> Model:
    """The module as a model whose hook points are its submodules, by their paths: `layers.2` is what that one puts out,
    `layers.2.hook_in` what enters it.

    `items` are what it is given: an array or a tensor whose first axis is the items, a .npy file of one, or a corpus of them;
    the first two are tried. Its positions are those of its output, or of the hook point `at` (a CNN's `conv2` has a grid of
    them; see `families.own`). `call(module, items)` runs it where `module(items)` does not. Of items of whole numbers, `words`
    says what each is called. Without `name` the model is called as the module's class is. The module itself is used, not a copy:
    on `device`, in eval mode, its parameters constants.

    Raises InterpError when the module has no parameters or no submodules, when it cannot run on the items, and when there is no
    submodule `at`.
    """
    if not isinstance(module, nn.Module):
        raise InterpError(f"open_module takes a torch.nn.Module, and {type(module).__name__} is none.")
    name = type(module).__name__.lower() if name is None else name
    if not any(True for _ in module.parameters()):
        raise InterpError(
            f"{name} has no parameters, so there is nothing to find in it; give a module that was trained."
        )
    if not any(True for _ in module.children()):
        raise InterpError(f"{name} has no submodules, so it has no hook points; put it into a torch.nn.Sequential.")
    if read_name(name)[1] is not None or not name.strip():
        raise InterpError(f"a module cannot be called {name!r}; give it a name of its own.")
    rows = _rows(items)
    module.to(resolve_device(device)).eval().requires_grad_(False)
    run = call or _plain
    few = torch.stack([_item(rows, row) for row in (0, min(1, len(rows) - 1))])
    layout = Layout(_grid(module, run, few, at, name))
    family, media = own_family(layout, run), _items(rows, layout, words, name)
    return Model(
        name=name,
        source=f"{OWN}{name}",
        module=module,
        tokenizer=None,
        hook_points=points(module, layout),
        frame=Frame(0, 0),
        n_ctx=2**31,
        attention="own",
        family=family,
        media=media,
    )


def _plain(module: nn.Module, items: Tensor) -> Any:
    return module(items)


def _grid(module: nn.Module, call: Call, few: Tensor, at: str | None, name: str) -> tuple[int, ...]:
    """The positions of an item at the hook point, or at the output."""
    parts = dict(module.named_modules())
    if at is not None and (not at or at not in parts):
        raise unknown(f"submodule in {name}:", at, [path for path in parts if path])
    seen: list[Tensor] = []

    def see(_: nn.Module, __: Any, out: Any) -> None:
        seen.extend(found for found in [first_tensor(out)] if found is not None)

    handle = (module if at is None else parts[at]).register_forward_hook(see)
    try:
        with torch.inference_mode():
            out = first_tensor(call(module, as_given(few.to(next(module.parameters()).device), module)))
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InterpError(
            f"{name} does not run on two items of shape {tuple(few.shape[1:])} ({few.dtype}): {first}; give items as it was "
            "trained on, or say how it is called with call=."
        ) from error
    finally:
        handle.remove()
    found = out if at is None else next(iter(seen), None)
    if out is None or found is None:
        raise InterpError(f"{at or name} gives no tensor when {name} runs on an item; name another place with at=.")
    if len(out) != len(few) or len(found) != len(few):
        raise InterpError(
            f"{at or name} gives a tensor of shape {tuple(found.shape)} for two items; its first axis must be the items."
        )
    return grid_of(found.shape, at is not None and isinstance(parts[at], FIRST))


# ---- items ----


def _rows(items: Any) -> Any:
    """An array whose first axis is the items."""
    rows: Any
    if isinstance(items, str | Path):
        rows = load_items(Path(items).expanduser())
    elif isinstance(items, HasItems):
        named = next(islice(items.documents(), 1), None)
        where = named.text.rpartition("#")[0] if named is not None else ""
        if not where:
            raise InterpError("open_module takes items of numbers, and this corpus has none; open one of an array.")
        rows = load_items(Path(where))
    else:
        rows = items.detach().cpu() if isinstance(items, Tensor) else np.asarray(items)
    if isinstance(rows, np.ndarray) and rows.dtype.kind not in "fiub":
        raise InterpError(f"items of {rows.dtype} are no numbers; give an array of such.")
    if rows.ndim < 2 or not len(rows) or 0 in rows.shape[1:]:
        raise InterpError(
            f"items of shape {tuple(rows.shape)} are none; the first axis is the items, others are each one's."
        )
    return rows


def load_items(path: Path) -> Shaped[np.ndarray, "N ..."]:
    """The array in a .npy file, read as it is needed; InterpError when it cannot be."""
    try:
        told = path.stat()
        return _mapped(path, (told.st_mtime_ns, told.st_size))
    except (OSError, ValueError, EOFError) as error:
        why = getattr(error, "strerror", None) or "it is no .npy file of such"
        raise InterpError(f"{path} cannot be read as an array of numbers: {why}; write it with numpy.save.") from error


@lru_cache(maxsize=8)
def _mapped(path: Path, stamp: tuple[int, int]) -> np.ndarray:
    """`stamp` changes with the file."""
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise ValueError("it holds several arrays")
    return found


def _item(rows: Any, row: int) -> Tensor:
    one = rows[row]
    return one.clone() if isinstance(one, Tensor) else torch.from_numpy(np.array(one))


def _items(rows: Any, layout: Layout, words: Sequence[str] | None, name: str) -> Items:
    first = _item(rows, 0)
    shape, counted = tuple(first.shape), not first.is_floating_point()
    spelt = counted and layout.grid == shape
    if words is not None and not spelt:
        raise InterpError(
            f"{name} has no position for each whole number of an item, so words name nothing; leave them out, or name a "
            "place with at= that has."
        )
    if spelt:
        most = max(int(rows.max()) + 1, len(words or ()))
        called = [NO_PLACE, *(words or ()), *(f" {token}" for token in range(len(words or ()), most))]
    else:
        called = place_words(layout.grid)

    def places(item: Tensor) -> Places:
        own = (item.long() + 1).tolist() if spelt else range(1, layout.positions + 1)
        return Places([0, *own], item)

    return Items(
        kind=NUMBERS,
        words=called,
        places=list(places(first)),
        read=_reader(rows, places, shape, len(called), name),
        shape=shape,
        some=[places(_item(rows, row)) for row in range(min(2, len(rows)))],
    )


def _reader(
    rows: Any, places: Callable[[Tensor], Places], shape: tuple[int, ...], known: int, name: str
) -> Callable[[Path], Places]:
    """What reads an item by its name: FILE.npy#NUMBER, or its number alone among those the module was opened with."""

    def read(path: Path) -> Places:
        where, _, number = str(path).rpartition("#")
        if not where and not path.is_absolute():
            number = number.rpartition("/")[2]  # of a title, which its topic may stand before
        if not number.isdecimal() or (where and not where.endswith(".npy")):
            raise InterpError(
                f"{name} reads items of numbers, and {path} names none; write FILE.npy#NUMBER, or the NUMBER of an item that it "
                "was opened with."
            )
        all_rows = load_items(Path(where)) if where else rows
        if int(number) >= len(all_rows):
            raise InterpError(f"there is no item {path}: {where or name} has items 0 to {len(all_rows) - 1:,}.")
        item = _item(all_rows, int(number))
        if tuple(item.shape) != shape:
            raise InterpError(
                f"the item {path} has shape {tuple(item.shape)}, and {name} was opened with items of {shape}."
            )
        made = places(item)
        if not 0 <= min(made) <= max(made) < known:
            raise InterpError(f"the item {path} holds a number that has no word; {name} knows 0 to {known - 2:,}.")
        return made

    return read
