"""Labels tried by editing: minimal edits of texts in which a feature fires, run through the model.

Of a label, that is a feature, a claim and the level above which it is made:

1.  Up to `texts` firings above the level are taken in testing documents, from strong to weak, of unlike documents as far as there
    are; at each, a stretch of `before` tokens before it and `after` tokens after it, of its document and block.
2.  Each stretch is read by the model's own tokenizer and run by itself, behind a separator: the control. Then with a quarter less
    context.
3.  Where the claim holds and the feature fires above the level, each edit of `rewriting.KINDS` that the text has is read and run
    in the same way. The peak is the token in which what became of it ends.
4.  `falsified.figures` says where claim and feature disagree.

Passes end at the hook point that the SAE reads, and at the peak, in models that do not look ahead. A peak that does not count (a sink) after
an edit leaves that edit out. What follows from the seed and the text is the same in every run, but for the last bits of an activation,
for texts share passes.

The table in the folder grows: labels that it has with the same claim and level are not tried again, other ones are, PART of
them in a file, so that a killed call goes on where it was.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from interp import places
from interp.codes import hooks_read
from interp.corpus import archives
from interp.evidence.excerpts import Stock, special_tokens
from interp.evidence.falsified import COLUMNS, FILE, FORMAT, NAME, read_edits
from interp.evidence.part import about_part, make_part, read_part, write_part
from interp.evidence.trials import EditsConfig, Trials, try_labels
from interp.labels.testing import Label
from interp.mask import Mask
from interp.models import Model
from interp.predicates.wordnet import wordnet
from interp.progress import bar
from interp.sae import SAE
from interp.types import InterpError, check_feature

PART = 8
"""Labels whose rows are written together: what a kill may lose."""


def try_edits(
    model: Model,
    sae: SAE,
    mask: Mask,
    stock: Stock,
    labels: Sequence[Label],
    folder: str | Path,
    *,
    sae_sha256: str,
    separator: int | None = None,
    config: EditsConfig | None = None,
) -> pa.Table:
    """The rows of these labels (`falsified.COLUMNS`), by feature; the table of all that were tried lies in the folder's `edits.parquet`.

    `sae_sha256` is the card's, `separator` the one that the text was read with (else the model's). Raises InterpError when the SAE is of
    another width than the model or reads several models, when a feature has two labels or is none of the SAE, when the model has no
    tokenizer, and when another process tries labels there.
    """
    config, place = config or EditsConfig(), Path(folder)
    _check(model, sae, labels)
    divides = model.separator if separator is None else separator
    nouns = None if archives.missing(["wordnet"]) else wordnet()
    special = special_tokens(model, divides)
    run = Trials(model, sae, mask, stock, config, divides, special, nouns)
    about = _about(run, sae_sha256)
    with places.only_one(place, "trying labels by editing"):
        places.drop_partials(place)
        before = _kept(place / FILE, about)
        rows = {} if before is None else {int(row["feature"]): row for row in before.to_pylist()}
        left = [one for one in labels if config.restart or not _same(rows.get(one.feature), one)]
        if left or before is None:
            rows |= _try(run, left, place / ".edits", about)
            _write(rows, place / FILE, about)
            if (place / ".edits").exists():
                places.drop_folder(place / ".edits")
    asked = sorted(one.feature for one in labels)
    return _table([rows[feature] for feature in asked], about)


def _check(model: Model, sae: SAE, labels: Sequence[Label]) -> None:
    hooks_read(model, sae)
    for hook in sae.reads:
        if model.width(hook.name) != hook.width:
            raise InterpError(
                f"{hook.name} of {model.name} has width {model.width(hook.name)} and {sae.name} {hook.width}: it was made for "
                "another model."
            )
    features = [check_feature(one.feature, sae.d_sae, sae.name) for one in labels]
    twice = sorted({feature for feature in features if features.count(feature) > 1})
    if twice:
        raise InterpError(f"feature {twice[0]} has several labels here; try one at a time.")


def _about(run: Trials, sae_sha256: str) -> dict[str, Any]:
    """Everything that a row follows from, but its label."""
    config, model = run.config, run.model
    return {
        "model": model.source,
        "model_sha256": model.fingerprint(),
        "dtype": model.dtype_name,
        "attention": model.attention,
        "sae": run.sae.name,
        "sae_sha256": sae_sha256,
        "reads": [hook.name for hook in run.sae.reads],
        "text_sha256": run.stock.sha256,
        "split": "labels",
        "texts": config.texts,
        "before": config.before,
        "after": config.after,
        "seed": config.seed,
        "wordnet": run.nouns is not None,
        "sentence_encoder": run.stock.text.encode is not None,
    }


def _same(row: dict[str, Any] | None, label: Label) -> bool:
    """Whether a row is of this very label."""
    return bool(row and row["claim"] == str(label.claim) and np.float32(row["level"]) == np.float32(label.level))


def _kept(path: Path, about: dict[str, Any]) -> pa.Table | None:
    """The table that lies there, if it is of the same model, text and seed; one of another is replaced."""
    try:
        table = read_edits(path)
    except InterpError:
        return None
    known = about_part(table)
    return table if all(known.get(name) == value for name, value in about.items()) else None


def _table(rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> pa.Table:
    return make_part(NAME, FORMAT, COLUMNS, {name: [row[name] for row in rows] for name in COLUMNS}, about)


def _write(rows: dict[int, dict[str, Any]], path: Path, about: dict[str, Any]) -> None:
    with places.whole_file(path) as partial:
        write_part(_table([rows[feature] for feature in sorted(rows)], about), partial)


# ---- some labels at a time ----


def _try(run: Trials, labels: Sequence[Label], work: Path, about: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The rows of these labels, by feature; files that a killed call left are taken as they are."""
    work.mkdir(exist_ok=True)
    places.drop_partials(work)
    rows: dict[int, dict[str, Any]] = {}
    ordered = sorted(labels, key=lambda one: one.feature)
    with bar(f"edits of {run.sae.name}", len(ordered), "labels") as step, torch.inference_mode():
        for start in range(0, len(ordered), PART):
            some = ordered[start : start + PART]
            said = json.dumps([about, [(one.feature, str(one.claim), one.level) for one in some]], sort_keys=True)
            path = work / f"part-{hashlib.sha256(said.encode()).hexdigest()[:24]}.parquet"
            table = _part(path)
            if run.config.restart or table is None:
                table = _table(try_labels(run, some), about)
                with places.whole_file(path) as partial:
                    write_part(table, partial)
            rows |= {int(row["feature"]): row for row in table.to_pylist()}
            step(len(some))
    return rows


def _part(path: Path) -> pa.Table | None:
    try:
        return read_part(path, NAME, FORMAT, COLUMNS)
    except InterpError:  # it is not there, or is not as it was written
        return None
