"""How faithful the open SAE is, and how many of its features mean something that can be said, on text that it was not trained on."""

from contextlib import suppress
from typing import TYPE_CHECKING

from interp.corpus import Corpus, open_corpus, tokenize
from interp.types import InterpError
from interp.workbench.opening import Opened

if TYPE_CHECKING:
    from interp.evals import Fidelity
    from interp.evals.meaning import Meaning


def evaluate(wb: Opened, corpus: str | Corpus, tokens: int) -> "Fidelity":
    """Fidelity on the corpus's held-out split: documents that an SAE of `--split train` was not trained on.

    A harvest without `--split` reads these documents too; the card's `corpus` says which it was. The figures are kept under INTERP_HOME, where that can be written, until `publish` puts it into the card.
    """
    from interp.evals import evaluate as measure
    from interp.evals import record as evaluations

    text = open_corpus(corpus) if isinstance(corpus, str) else corpus
    blocks = tokenize(text, wb.model, tokens, split="heldout")
    found = measure(wb.model, wb.sae, blocks, norm_cutoff=wb.card.mask.cutoffs)
    about = {"name": text.name, "licence": text.licence, "version": text.version, "split": "heldout"}
    with suppress(InterpError):  # a home that cannot be written does not take the answer away
        evaluations.keep(
            wb.card.sae_sha256, found.to_dict() | {"text": about, "tokens_sha256": blocks.sha256()}
        )  # fmt: skip
    return found


def meaning(wb: Opened, *, seed: int = 0) -> "Meaning":
    """What class each feature is of (piece, token, class, context, next-token, unexplained), and the shares of the classes;
    on the held-out documents of the index. The rules stand in `interp.evals.meaning`; a few minutes for 9,216 features.

    Raises InterpError when the index keeps examples only, has no held-out text, or the sentence encoder is not installed.
    """
    from interp.evals.meaning import measure_meaning
    from interp.predicates import explain

    index = wb.index
    if index.partial:
        raise InterpError(
            f"the index in {index.folder} keeps examples only, and meaning is measured on all activations; "
            f"`interp index {wb.folder}` builds the full one."
        )
    text, features = index.passages, range(index.d_sae)
    if index.has_clean_levels:
        cleans = [index.clean(feature) for feature in features]
    else:  # built before there were any
        cleans = [explain(*index.fired(feature), text) for feature in features]
    return measure_meaning(
        text, index.fired, cleans, index.features["fires"].to_numpy(), index.vocabulary, wb.meanings, seed=seed
    )
