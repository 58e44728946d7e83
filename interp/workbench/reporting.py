"""The report of the open SAE: made, kept, found again, and written beside it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from interp import places
from interp.checkpoint import Card
from interp.checkpoint.card import versions
from interp.checkpoint.files import REPORT
from interp.corpus import Corpus, TokenBlocks, open_corpus, tokenize
from interp.evals import record
from interp.evals.figure import Section
from interp.evals.measures import MEASURES, Measure, Setting, find_measures
from interp.evals.page import page
from interp.evals.report import FILE, Of, Report, kept_path, make_report, read_report
from interp.evals.told import markdown
from interp.render.terminal import say
from interp.render.words import duration
from interp.types import InterpError
from interp.workbench.elsewhere import elsewhere_measures
from interp.workbench.holding import held_against
from interp.workbench.known_shares import own_measures
from interp.workbench.opening import Opened

LEAST_BLOCKS, LEAST_DOCUMENTS = 2, 2
"""With fewer there is nothing to draw from, and so no interval."""
FAR = 0.3
"""By which the unexplained share may be over the largest of the card before the SAE is taken for another hook point's."""


def report(
    wb: Opened,
    corpus: str | Corpus = "wiki-en",
    tokens: int = 50_000,
    *,
    only: Sequence[str] = (),
    everything: bool = False,
    seed: int = 0,
    beside: bool = False,
    nulls: str = "",
    extra: Sequence[Measure] = (),
) -> Report:
    """Everything that is measured of the SAE on the held-out documents of a text: `only` the sections that are named, or all
    that can be made here (with `everything`, those that take many minutes too). `nulls` is a folder of SAEs that found
    nothing, which every figure is held against (`holding.py`), and of other seeds and siblings (`elsewhere.py`). `extra` are measures
    beside those of `evals` and of this room.

    Sections are kept under INTERP_HOME as they are made: stopped and called again, it goes on where it was. Those of the report
    that came with the SAE stay where they cannot be made here, or were not asked for. `beside` writes report.json, report.md and report.html into the SAE's folder too. Raises InterpError for an unknown section, a named one
    that cannot be made, a text too short for an interval, and an SAE that does not belong to this model or hook point.
    """
    if beside:
        places.check_writable(wb.folder)
    check_width(wb)
    text = open_corpus(corpus) if isinstance(corpus, str) else corpus
    blocks = tokenize(text, wb.model, tokens, split="heldout")
    documents = check_enough(blocks, tokens)
    about = {"name": text.name, "licence": text.licence, "version": text.version, "split": "heldout"}
    setting = Setting(
        model=wb.model, sae=wb.sae, blocks=blocks, norm_cutoff=wb.card.mask.cutoffs, seed=seed, of=about, recipe=wb.card.recipe
    )  # fmt: skip
    of = identity(wb, setting, documents)
    folder = report_folder(wb.card.sae_sha256)
    measures = (*MEASURES, *extra, *elsewhere_measures(wb, text, nulls), *own_measures(wb))
    compared = find_measures((), measures, everything=everything)
    held = held_against(wb, nulls, text, setting, report_folder("nulls"), compared)
    measures = (*measures, held)
    wanted = find_measures(tuple(only), measures, everything=everything)

    def done(section: Section, kept: bool) -> None:
        say(f"{section.name}: {'kept from before' if kept else f'done in {duration(section.seconds)}'}")
        if section.name == "fidelity":
            check_explains(wb, section)

    with places.only_one(folder, "the report"):
        places.drop_partials(folder)
        if nulls:  # of which there may be more by now; what was measured of each is kept
            kept_path(folder, of, held).unlink(missing_ok=True)
        made = make_report(
            of, setting, wanted, folder, named=bool(only), versions=versions(), among=measures,
            before=_came_with(wb), done=done,
        )  # fmt: skip
        write(made, folder)
    remember(wb, made, about)
    if beside:
        write_beside(wb, made)
    return made


def _came_with(wb: Opened) -> Report | None:
    """The report in the SAE's folder, where one is that can be read and is of these weights."""
    with suppress(InterpError):
        return read_report(wb.folder / FILE, wb.card.sae_sha256)
    return None


def report_folder(sae_sha256: str) -> Path:
    """Where the report of these weights, and its sections, are kept."""
    return places.cache() / "reports" / sae_sha256


def identity(wb: Opened, setting: Setting, documents: int) -> Of:
    """What is measured, and on what."""
    return Of(
        name=wb.card.name,
        model=wb.card.model,
        model_sha256=wb.card.model_sha256,
        sae_sha256=wb.card.sae_sha256,
        hook_name=wb.card.hook_name,
        d_sae=wb.sae.d_sae,
        text=dict(setting.of),
        tokens_sha256=setting.blocks.sha256(),
        positions=setting.blocks.positions,
        documents=documents,
        seed=setting.seed,
    )


# ---- what cannot be measured ----


def check_width(wb: Opened) -> None:
    """Raises InterpError when the SAE reads vectors of another length than the model has there."""
    for hook in wb.sae.reads:
        own = hook.width or (wb.sae.d_in if len(wb.sae.reads) == 1 else 0)
        if hook.model or not own:
            continue
        there = wb.model.width(hook.name)
        if there != own:
            raise InterpError(
                f"{wb.card.name} reads vectors of length {own} at {hook.name}, and {wb.card.model} has {there} there; "
                "it was made for another model or hook point: name the right one in its card (`interp hooks MODEL` lists them)."
            )


def check_enough(blocks: TokenBlocks, tokens: int) -> int:
    """How many documents the blocks have; InterpError when there are too few of them for an interval."""
    documents = len(np.unique(blocks.document_NT[blocks.real_NT()].numpy()))
    if len(blocks.tokens_NT) < LEAST_BLOCKS or documents < LEAST_DOCUMENTS:
        raise InterpError(
            f"{tokens:,} tokens of this text are {len(blocks.tokens_NT)} block(s) of {blocks.block} with {documents} "
            f"document(s), too few for an interval; give more text, or --tokens {max(4 * tokens, 4 * blocks.block):,}."
        )
    return documents


def check_explains(wb: Opened, section: Section) -> None:
    """Raises InterpError when far more is left unexplained than on any text that the card tells of."""
    sets = [value for value in wb.card.metrics.values() if isinstance(value, dict)] or [wb.card.metrics]
    said = [float(one["fvu"]) for one in sets if isinstance(one.get("fvu"), int | float)]
    found = next((one.value for one in section.figures if one.name == "fvu"), None)
    if said and found is not None and found > max(said) + FAR:
        raise InterpError(
            f"{wb.card.name} leaves {found:.0%} of the variance unexplained here, and its card tells of {max(said):.0%} at most: "
            "these are not the activations that it was made for, or the text is unlike any that it knows; `interp verify` says "
            "whether it fits the model, and --corpus names another text."
        )


# ---- kept ----


def write(made: Report, folder: Path) -> dict[str, str]:
    """Write the report's three files; their SHA-256 by name."""
    for name, text in zip(REPORT, (made.to_json(), markdown(made), page(made)), strict=True):
        with places.whole_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return {name: places.sha256_file(folder / name) for name in REPORT}


def write_beside(wb: Opened, made: Report) -> None:
    """Write the report into the SAE's folder; its hashes and headline into a card that has hashes of the other files."""
    hashes = write(made, wb.folder)
    card = Card.read(wb.folder)
    if card.files:
        own = card.metrics | {"report": made.for_card()}
        replace(card, metrics=own, files=dict(sorted((card.files | hashes).items()))).write(wb.folder)


def remember(wb: Opened, made: Report, about: dict[str, Any]) -> None:
    """Keep the figures of fidelity as `evaluate` does, with the headline, until the checkpoint is published."""
    with suppress(InterpError):  # a home that cannot be written, or no fidelity in the report
        figures = flat(made)
        record.keep(
            wb.card.sae_sha256,
            figures | {"headline": made.summary(), "text": about, "tokens_sha256": made.of.tokens_sha256},
        )


def flat(made: Report) -> dict[str, Any]:
    """The figures of fidelity by name, with their intervals, as a card and scripts of before have them.

    Raises InterpError when the report has none.
    """
    section = made["fidelity"]
    figures: dict[str, Any] = {"tokens": section.of["counted"], "blocks": section.of["blocks"]}
    for one in section.figures:
        figures[one.name] = one.value
        if one.interval is not None:
            figures[f"{one.name}_interval"] = list(one.interval)
    if figures.get("dead_share") is not None:
        figures["dead"] = round(figures["dead_share"] * made.of.d_sae)
    return figures


def find_report(wb: Opened) -> Path | None:
    """The folder of the report that holds: the one made on this machine, else the one beside the SAE; None without.

    Raises InterpError when it is damaged or of other weights, so that it does not leave.
    """
    for folder in (report_folder(wb.card.sae_sha256), wb.folder):
        if (folder / FILE).exists():
            read_report(folder / FILE, wb.card.sae_sha256)
            return folder
    return None


__all__ = ["find_report", "report"]
