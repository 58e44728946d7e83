"""SAEs of any known format opened side by side, what their files do not say taken from the others, and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

import torch

from interp.checkpoint import Card, load
from interp.checkpoint.files import resolve
from interp.checkpoint.formats import format_of, read
from interp.codes import read_blocks
from interp.corpus import Corpus, TokenBlocks, open_corpus, tokenize
from interp.device import native_bfloat16, resolve_device
from interp.mask import SINK_RATIO, norm_cutoff
from interp.models import Model, open_model
from interp.sae import SAE
from interp.types import InterpError
from interp.workbench.opening import Opened

if TYPE_CHECKING:
    from interp.evals.comparison import Comparison

MEASURED = 32
"""Blocks of the text whose norms give the cut-off of an SAE that has none."""


@dataclass(eq=False)
class _Given:
    """One SAE as it was asked for."""

    letter: str
    path: str
    sae: SAE
    card: Card | None
    model: str = ""
    """As its files say; empty where they do not."""
    assumed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.letter} ({self.path})"


def compare(
    saes: Sequence[str | Path],
    corpus: str | Corpus = "wiki-en",
    tokens: int = 50_000,
    *,
    l0s: Sequence[int] = (),
    model: str | Model = "",
    hook: str = "",
    device: str = "auto",
) -> "Comparison":
    """SAEs of one model on the held-out split of a text (see `interp.evals.comparing`), called A, B, C … in their order.

    Each is a folder with a card, or of another library's format. What an SAE's files do not say is taken from the others, and the
    comparison says so: its model (or `model`, a name or an open one), its hook point (or `hook`), and the norm beyond which positions are sinks. Raises
    InterpError when one cannot be opened, is of another model, or does not fit its hook point.
    """
    from interp.evals.comparing import compare as measure
    from interp.evals.comparing import described

    if not 2 <= len(saes) <= len(ascii_uppercase):
        raise InterpError(f"{len(saes)} SAEs were given; a comparison is of 2 to {len(ascii_uppercase)}.")
    given = [_open(letter, str(path)) for letter, path in zip(ascii_uppercase, saes, strict=False)]
    if not isinstance(model, Model):
        opened, told = _opened_model(given, _model_name(given, model), device), bool(model)
    else:
        opened, told = model, False
    _place(given, hook)
    _check_model(given, opened, told)
    _check_widths(given, opened)
    text = open_corpus(corpus) if isinstance(corpus, str) else corpus
    blocks = tokenize(text, opened, tokens, split="heldout")
    cutoffs = _cutoffs(given, opened, blocks)
    for one in given:
        one.sae.to(opened.device)
    return measure(
        opened,
        {one.letter: one.sae for one in given},
        blocks,
        cutoffs=cutoffs,
        l0s=l0s,
        about=[described(one.letter, one.sae, one.path, one.assumed) for one in given],
        of={"text": text.name, "split": "heldout", "version": text.version},
    )


def compare_with(
    wb: Opened, *others: str | Path, corpus: str | Corpus = "wiki-en", tokens: int = 50_000, l0s: Sequence[int] = ()
) -> "Comparison":
    """This SAE, called A, beside others (see `interp.workbench.comparing.compare`).

    Raises InterpError as that does.
    """
    return compare([wb.folder, *others], corpus, tokens, l0s=l0s, device=wb.device)


# ---- opening ----


def _open(letter: str, path: str) -> _Given:
    """An SAE with its card where it has one, else as its library's format is read."""
    place = Path(path).expanduser()
    folder = place if place.exists() and format_of(place) else place if place.is_file() else resolve(path)
    if (folder / "card.json").exists():
        card = Card.read(folder)
        return _Given(letter, path, load(folder), card, card.model)
    kind, foreign = read(folder)
    if foreign.unknown:
        raise InterpError(
            f"{letter} ({path}) has settings that this version does not know ({', '.join(foreign.unknown[:4])}), and which may "
            "change numbers; `interp convert` writes it without them, and lists them."
        )
    one = _Given(letter, path, foreign.sae, None, foreign.model)
    one.assumed.append(f"it has no card; it was read as {kind}")
    one.assumed += [phrase for phrase in foreign.lost if phrase.startswith("no hook point is in the files")]
    return one


def _model_name(given: Sequence[_Given], asked: str) -> str:
    """The model to open. Raises InterpError when nothing says which."""
    said = [one.model for one in given if one.card] + [one.model for one in given if one.model]
    if not asked and not said:
        raise InterpError("none of these SAEs says which model it is of; name it with --model.")
    return asked or said[0]


def _place(given: Sequence[_Given], asked: str) -> None:
    """Name the hook points that files do not name."""
    named = list(dict.fromkeys(one.sae.hook_name for one in given if one.sae.hook_name))
    for one in given:
        if one.sae.hook_name:
            continue
        if not asked and len(named) != 1:
            there = f" The others are at {', '.join(named)}." if named else ""
            raise InterpError(f"{one} does not say which hook point it is of; name it with --hook.{there}")
        if one.sae.writes != one.sae.reads:
            raise InterpError(
                f"{one} writes another place than it reads and names neither; `interp convert` names both."
            )
        one.sae.set_hooks(asked or named[0])
        one.assumed.append(
            f"its files name no hook point; taken: {asked or named[0]}, " + ("as told" if asked else "as the others")
        )


def _opened_model(given: Sequence[_Given], name: str, device: str) -> Model:
    """The model, in the number type and with the attention of all cards, where these agree."""
    cards = [one.card for one in given if one.card]
    types, attentions = {card.dtype for card in cards}, {card.attention for card in cards}
    dtype = next(iter(types)) if len(types) == 1 else "float32" if types else None
    if dtype == "bfloat16" and not native_bfloat16(resolve_device(device)):
        dtype = "float32"
    return open_model(name, dtype=dtype, device=device, attention=attentions.pop() if len(attentions) == 1 else "sdpa")


def _check_model(given: Sequence[_Given], model: Model, told: bool) -> None:
    """Raises InterpError for an SAE of another model or tokenizer; notes what cannot be known. `told`: a name was given for SAEs
    whose files name another."""
    names = {Path(name).name.lower() for name in (model.name, model.source)}
    for one in given:
        if one.card is not None:
            here = model.fingerprint_like(one.card.model_sha256)
            if here != one.card.model_sha256:
                raise InterpError(
                    f"{one} was made for {one.card.model} with weights {one.card.model_sha256[:12]}…, and the model that the "
                    f"others are compared on, {model.name}, has {here[:12]}…; SAEs of one model are compared."
                )
            if one.card.separator != model.separator:
                raise InterpError(
                    f"{one} was made on text whose documents are parted by token {one.card.separator}, and {model.name} parts "
                    f"them by {model.separator}: it is of another tokenizer."
                )
        elif one.model and Path(one.model).name.lower() not in names and not told:
            raise InterpError(
                f"{one} says that it is of {one.model}, and the others are of {model.name}; SAEs of one model are compared. If "
                f"the two are the same, say so with --model."
            )
        else:
            how = f"its files say {one.model}" if one.model else "its files name none"
            one.assumed.append(f"model: taken to be {model.name} ({how}; weights cannot be compared)")


def _check_widths(given: Sequence[_Given], model: Model) -> None:
    """Raises InterpError for an SAE that does not fit the model at its hook point."""
    for one in given:
        for hook in (*one.sae.reads, *one.sae.writes):
            if hook.model:
                continue  # refused where it is read
            width = model.width(hook.name)
            if hook.width != width:
                fits = ", ".join(
                    f"{other.letter} at {other.sae.hook_name}" for other in given if other.sae.d_in == width
                )
                raise InterpError(
                    f"{one} takes rows of width {hook.width}, and {model.name} has width {width} at {hook.name}"
                    + (f", which fits {fits}" if fits else "")
                    + "; it was made for another model or hook point (--hook names the one of files that name none)."
                )


# ---- which positions count ----


def _cutoffs(given: Sequence[_Given], model: Model, blocks: TokenBlocks) -> dict[str, Mapping[str, float]]:
    """Each one's cut-offs; those that have none get the lowest of the others at that hook point, else one that is measured."""
    known: dict[str, float] = {}
    for one in given:
        for hook, cutoff in (one.card.mask.cutoffs if one.card else {}).items():
            known[hook] = min(cutoff, known.get(hook, cutoff))
    made: dict[str, Mapping[str, float]] = {}
    for one in given:
        if one.card is not None:
            made[one.letter] = one.card.mask.cutoffs
            continue
        hooks = [str(hook) for hook in one.sae.reads]
        told = [hook for hook in hooks if hook in known]
        for hook in hooks:
            if hook not in known:
                known[hook] = _measured(model, hook, blocks)
        made[one.letter] = {hook: known[hook] for hook in hooks}
        where = "as the others' cards say" if told else f"{SINK_RATIO:g} times the median norm on this text"
        cut = ", ".join(f"{known[hook]:.4g}" for hook in hooks)
        one.assumed.append(f"positions of a norm above {cut} are sinks and not counted, {where}")
    return made


@torch.inference_mode()
def _measured(model: Model, hook: str, blocks: TokenBlocks) -> float:
    norms, real = [], []
    for some in read_blocks(model, [hook], blocks.tokens_NT[:MEASURED], separator=blocks.separator):
        norms.append(some.x[hook].norm(dim=-1).flatten())
        real.append(some.real_BT.flatten())
    return norm_cutoff(torch.cat(norms), torch.cat(real))
