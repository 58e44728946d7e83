"""How faithful the open SAE is, measured on text that it was not trained on."""

from contextlib import suppress
from typing import TYPE_CHECKING

from interp.corpus import Corpus, open_corpus, tokenize
from interp.types import InterpError
from interp.workbench.opening import Opened

if TYPE_CHECKING:
    from interp.evals import Report


def evaluate(wb: Opened, corpus: str | Corpus, tokens: int) -> "Report":
    """Fidelity on the corpus's held-out split: documents that an SAE of `--split train` was not trained on.

    A harvest without `--split` reads these documents too; the card's `corpus` says which it was. The report is kept under INTERP_HOME, where that can be written, until `publish` puts it into the card.
    """
    from interp.evals import evaluate as measure
    from interp.evals import record as evaluations

    text = open_corpus(corpus) if isinstance(corpus, str) else corpus
    blocks = tokenize(text, wb.model, tokens, split="heldout")
    report = measure(wb.model, wb.sae, blocks, norm_cutoff=wb.card.mask.cutoffs)
    about = {"name": text.name, "licence": text.licence, "version": text.version, "split": "heldout"}
    with suppress(InterpError):  # a home that cannot be written does not take the answer away
        evaluations.keep(
            wb.card.sae_sha256, report.to_dict() | {"text": about, "tokens_sha256": blocks.sha256()}
        )  # fmt: skip
    return report
