"""Verify a checkpoint: files, then what it says of itself made anew, each kind of claim by a module of its own.

    files       every hash, the card's own, the pin                            no model
    identity    model, separator, tokenizer, sizes, cut-off, dtype
    numbers     activations, L0, EV and counts on the probe against checks.json
    tables      the index's tables against one another, its tokens against the documents' hashes
    columns     neighbours, logits and neurons of all features, from weights
    sample      blocks of the index drawn at random, made anew                 or all of it: whole
    metrics     the card's figures on a text
    evidence    whether what was tested of features is of these weights
    claims      what then stands behind each claim

Numbers are made in the card's dtype and attention where this machine has them, else in float32. What cannot be told is
`unchecked`, never held for or against a checkpoint.
"""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from interp.checkpoint import Card, load
from interp.checkpoint.files import pin, present
from interp.corpus import Corpus
from interp.index import FeatureIndex
from interp.models import Model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.claims import claims
from interp.verification.columns import check_columns
from interp.verification.diagnose import diagnose
from interp.verification.evidence import check_evidence
from interp.verification.files import check_files, check_pin
from interp.verification.identity import check_cutoff, check_identity, check_shape
from interp.verification.measure import activations
from interp.verification.metrics import check_metrics
from interp.verification.numbers import CHECKS, check_fit, check_probe, open_for, read_checks, trial_of
from interp.verification.probe import probe_blocks
from interp.verification.report import check_report
from interp.verification.sample import BLOCKS, Sample, check_sample, draw, readable
from interp.verification.tables import check_belongs, check_counts, check_tokens
from interp.verification.verdict import Check, Verification, differs, unchecked
from interp.verification.whole import check_whole


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be made anew, and with what."""

    model: str = ""
    """Another model than the card names."""
    device: str = "auto"
    numbers: bool = True
    full: bool = False
    """All of the index, and not some blocks."""
    blocks: int = BLOCKS
    seed: int | None = None
    """Of the blocks that are drawn; without, one that nobody could know beforehand."""
    metrics: Corpus | None = None
    """Text to measure the card's metrics on."""
    tokens: int | None = None
    """Of that text; as many as the card says without."""
    expect: str = ""
    """The pin that the files must have."""


def verify(folder: Path, asked: Asked | None = None) -> Verification:
    """Everything that can be checked of a checkpoint with a card.

    Raises InterpError when the folder is no checkpoint or cannot be read; what differs is in the answer.
    """
    asked = asked or Asked()
    began = time.perf_counter()
    card, own = Card.read(folder), pin(present(folder)[0])
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    checks, dtype = [check_pin(own, asked.expect)] if asked.expect else [], ""
    checks += check_files(folder)
    if asked.numbers:
        made, dtype = _made_anew(folder, card, asked, seed)
        checks += made
    said = claims(folder, card, checks)
    took = time.perf_counter() - began
    return Verification(name=card.name, checks=checks, claims=said, pin=own, dtype=dtype, seed=seed, seconds=took)


def _made_anew(folder: Path, card: Card, asked: Asked, seed: int) -> tuple[list[Check], str]:
    """(checks of numbers, dtype they were computed in); a sentence in their place where weights or model do not open."""
    try:
        sae = load(folder, check=False)
    except InterpError as error:
        return [differs("weights", str(error))], ""
    tested = check_evidence(folder, card, sae.d_sae) + check_report(folder, card)
    try:
        model = open_for(card, asked.model, asked.device)
    except InterpError as error:
        unopened = unchecked("numbers", f"the model cannot be opened: {error}")
        return [unopened, *_index(folder, card, sae, None, asked, seed), *tested], ""
    return [*_numbers(folder, card, sae.to(model.device), model, asked, seed), *tested], model.dtype_name


def _numbers(folder: Path, card: Card, sae: SAE, model: Model, asked: Asked, seed: int) -> list[Check]:
    checks = [*check_identity(folder, card, model), check_shape(folder, card, sae)]
    if len(sae.reads) > 1:
        several = unchecked("numbers", "a crosscoder reads several hook points; only its files and metrics are checked")
        return [*checks, several, *_metrics(card, sae, model, asked)]
    if card.hook_name not in model.hook_points or (card.hook_name_out or card.hook_name) not in model.hook_points:
        return [*checks, differs("hook point", f"{model.name} has no hook point {card.hook_name} {card.hook_name_out}")]
    width = model.shapes().get(card.hook_name)
    if width != (sae.d_in,):
        return [*checks, differs("hook point", f"{card.hook_name} has shape {width}, and the SAE reads {sae.d_in}")]
    stored = read_checks(folder)
    if stored:
        checks += check_probe(card, sae, model, stored)
    else:
        checks.append(unchecked("probe", f"there is no {CHECKS}; `interp verify --write` by its maker adds it"))
    checks += _index(folder, card, sae, model, asked, seed)
    if model.media is not None:
        checks.append(
            unchecked("norm_cutoff", f"the checkpoint holds no {model.media.kind} that it could be told from")
        )
    elif not any(check.what in ("norm_cutoff", "fit") for check in checks):  # there is no index to tell from
        tokens = probe_blocks(model, min(card.context, model.n_ctx))
        x = activations(model, [card.hook_name], tokens)[card.hook_name]
        checks.append(check_cutoff(card, tokens, x, own_text=False))
        checks += [] if stored else [check_fit(card, sae, model, tokens, own_text=False)]
    return checks + _metrics(card, sae, model, asked)


def _metrics(card: Card, sae: SAE, model: Model, asked: Asked) -> list[Check]:
    """The card's figures on the text that is asked, if any."""
    if asked.metrics is None:
        return []
    try:
        return check_metrics(card, sae, model, asked.metrics, asked.tokens)
    except InterpError as error:  # no position of that text counts, say: nothing is said for or against
        return [unchecked("metrics", str(error))]


def _index(folder: Path, card: Card, sae: SAE, model: Model | None, asked: Asked, seed: int) -> list[Check]:
    """What can be checked of the index, without a model too; a broken one is told of in a sentence."""
    try:
        index = FeatureIndex.open(folder / "index")
    except InterpError as error:
        return [unchecked("index", str(error))]
    same = model is not None and model.fingerprint_like(card.model_sha256) == card.model_sha256
    try:
        belongs = check_belongs(index, card, sae, model)
        if belongs.verdict == "differs":
            return [belongs]
        checks = [belongs, *check_counts(index), check_tokens(index, model)]
        checks += check_columns(index, sae, model if same else None)
        return checks + (_drawn(folder, card, sae, model, index, asked, seed) if model is not None else [])
    except Exception as error:  # a broken Parquet file is answered with whatever its reader stumbles on
        first = (str(error).splitlines() or [""])[0]
        return [differs("index", f"it cannot be read: {type(error).__name__}: {first[:200]}")]


def _drawn(
    folder: Path, card: Card, sae: SAE, model: Model, index: FeatureIndex, asked: Asked, seed: int
) -> list[Check]:
    """Blocks made anew, with what they tell of the cut-off, and of the fit where the probe has no numbers."""
    if model.media is not None:
        return [unchecked("numbers of the index", f"the {model.media.kind} are not in it")]
    checks = check_whole(index, card, sae, model) if asked.full else []
    if not len(readable(index)):
        return [*checks, unchecked("numbers of the index", index.unread)]
    sample = draw(index, card, model, seed, asked.blocks)
    checks += check_sample(sample, card, sae)
    checks.append(check_cutoff(card, sample.tokens_BT, sample.x_BTD, own_text=True))
    if not (folder / CHECKS).exists():
        checks.append(check_fit(card, sae, model, sample.tokens_BT, own_text=True))
    if any(check.what == "numbers of the index" and check.verdict == "differs" for check in checks) and sample.rows:
        checks.append(differs("cause", _cause(card, sae, model, sample)))
    return checks


def _cause(card: Card, sae: SAE, model: Model, sample: Sample) -> str:
    cause = diagnose(trial_of(card, sae, model, sample.tokens_BT), sample.rows)
    if cause.startswith("which features pass"):  # most rows come out: what differs is some of them
        return "most rows come out as stored, so the model and the hook point are right: rows of the index were edited"
    return cause
