"""What a model makes of the last token of labelled texts, kept on disk: one forward pass a text, whatever is probed later.

A task's activations at a hook point are a file in the cache, `probing/<key>/<hook point>/<task>.safetensors`, where the
key is that of the model's weights, its number type and how texts are drawn; so another dictionary of the same hook point,
a null or another k costs no pass, and a run that was stopped goes on with the task it was at. What was measured without
any dictionary (`baselines`) lies beside it.

Axes    N text, D width of a hook point.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from interp import places
from interp.codes import read_items
from interp.corpus.sources.installed import version
from interp.evals.probing_tasks import Labelled, Plan
from interp.models import Model
from interp.types import InterpError

FORMAT = 1
"""Of the files, and of what the baselines in them are."""
TOKENS_AT_ONCE, ITEMS_AT_ONCE = 4_096, 256


def folder(model: Model, plan: Plan) -> Path:
    """Where this model's activations on texts drawn so are kept."""
    key = {
        "model": model.fingerprint(),
        "dtype": model.dtype_name,
        "sets": version("sae-probes"),
        "texts": [plan.train, plan.test, plan.tokens, plan.seed],
        "format": FORMAT,
    }
    return places.cache() / "probing" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def token_ids(model: Model, labelled: Labelled, plan: Plan) -> list[list[int]]:
    """Of each text the separator and its first `plan.tokens` tokens, as many as the model reads."""
    most = min(plan.tokens, model.n_ctx - len(model.framed([])))
    return [model.framed(model.tokenize(text)[:most]) for text in labelled.texts]


@dataclass(frozen=True)
class Read:
    """What is known of a task's texts as a model reads them."""

    digest: str
    """SHA-256 of the token ids."""
    lengths: tuple[int, ...]
    """Tokens of each text, without the separator."""


_read: WeakKeyDictionary[nn.Module, dict[tuple[int, int], Read]] = WeakKeyDictionary()


def as_read(model: Model, labelled: Labelled, plan: Plan) -> Read:
    """The texts as tokens, counted and hashed: once for a model, whatever is measured on them."""
    known, key = _read.setdefault(model.module, {}), (hash(labelled.texts), plan.tokens)
    if key not in known:
        items = token_ids(model, labelled, plan)
        digest = hashlib.sha256(json.dumps(items).encode()).hexdigest()
        known[key] = Read(digest, tuple(len(ids) - len(model.framed([])) for ids in items))
    return known[key]


def last_rows(
    model: Model,
    hooks: Sequence[str],
    labelled: Labelled,
    plan: Plan,
    step: Callable[[int], None] = lambda tokens: None,
) -> dict[str, Float[Tensor, "N D"]]:
    """float32 activations of the texts' last tokens by hook point: from the cache, else by one pass for all hook points that are
    missing. `step` is told how many tokens each pass has read.

    Raises InterpError when the disk is full or cannot be written.
    """
    digest = as_read(model, labelled, plan).digest
    files = {hook: folder(model, plan) / quote(hook, safe="") / f"{labelled.task}.safetensors" for hook in hooks}
    x = {hook: kept for hook, path in files.items() if (kept := _kept(path, digest)) is not None}
    missing = [hook for hook in hooks if hook not in x]
    if missing:
        items = token_ids(model, labelled, plan)
        made = {hook: torch.zeros(len(items), model.width(hook)) for hook in missing}
        for some in _together(items):
            texts = [items[i] for i in some]
            for read in read_items(model, missing, texts, separator=model.separator, at_once=len(texts)):
                for hook in missing:
                    made[hook][[some[i] for i in read.item_B]] = read.x[hook][:, -1].cpu()
            step(sum(map(len, texts)))
        for hook, rows in made.items():
            with places.whole_file(files[hook]) as partial:
                save_file({"x": rows.contiguous()}, partial, metadata={"tokens": digest})
        x |= made
    return x


def _together(items: list[list[int]]) -> Iterator[list[int]]:
    """Which items share a pass: those of similar length, about TOKENS_AT_ONCE together."""
    order = sorted(range(len(items)), key=lambda i: len(items[i]))
    while order:
        count = 1
        while count < min(len(order), ITEMS_AT_ONCE) and (count + 1) * len(items[order[count]]) <= TOKENS_AT_ONCE:
            count += 1
        yield order[:count]
        order = order[count:]


def _kept(path: Path, digest: str) -> Float[Tensor, "N D"] | None:
    """What the file holds if it is whole and of these tokens."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            same = (file.metadata() or {}).get("tokens") == digest
            x: Tensor | None = file.get_tensor("x") if same else None
    except (SafetensorError, OSError):
        return None  # damaged, and made again
    return x


def kept_baselines(
    model: Model,
    hooks: Sequence[str],
    labelled: Labelled,
    plan: Plan,
    digest: str,
    measure: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """What `measure` gives of the task without a dictionary, from the cache where it was measured on the same tokens."""
    place = folder(model, plan) / quote("+".join(hooks), safe="")
    path = place / f"{labelled.task}.json"
    asked = {"tokens": digest, "ks": list(plan.ks), "format": FORMAT}
    if path.is_file():
        try:
            before = places.read_json(path)
        except InterpError:
            before = {}
        if isinstance(before, dict) and before.get("of") == asked:
            found: dict[str, Any] = before["found"]
            return found
    found = measure()
    places.write_json(path, {"of": asked, "found": found})
    return found
