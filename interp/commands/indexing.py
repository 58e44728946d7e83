"""Indexes of where features and neurons fire, what features mean, and lenses."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from interp import places
from interp.commands.opening import open_sae
from interp.commands.options import Device, Option, Restart, Sae, Together
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.evals.meaning import Meaning
    from interp.workbench.says import Lenses

TEXT = "wiki-en + python"
"""What is indexed where no text is named."""
NOT_OF_NEURONS = "--neurons takes no --beside, --extend, --into or --together: the index is the model's, not the SAE's, and is built in one process."


@dataclass(frozen=True)
class Indexed:
    """Where an index lies: a folder, or the URL that it was sent to."""

    where: str


def index(
    sae: Sae,
    *,
    corpus: Annotated[str, Option(f"Text to index. Without: {TEXT}.")] = "",
    acts: Annotated[str, Option("Folder or URL that `interp harvest` wrote, to be indexed instead of a text.")] = "",
    tokens: Annotated[
        int | None, Option("How many tokens to index. Without: a million of a text, all of a harvest.", low=1)
    ] = None,
    keep: Annotated[
        str, Option("What to keep: all activations, or examples, which keeps those around each feature's examples.")
    ] = "all",
    beside: Annotated[bool, Option("Write the index into the SAE's folder, to be shared with it.")] = False,
    share: Annotated[
        bool,
        Option("With --beside: keep the text once for all SAEs of the model, in a folder named text above theirs."),
    ] = False,
    extend: Annotated[bool, Option("Add documents to the index that is there.")] = False,
    restart: Annotated[bool, Option("Begin again instead of going on where a build was stopped.")] = False,
    into: Annotated[str, Option("Send a copy of the index to this URL (s3://, gs://, file://).")] = "",
    memory: Annotated[float, Option("How many GiB of memory the build may use beside the model.", low=0.5)] = 2.0,
    neurons: Annotated[int | None, Option("Index the raw neurons of this layer instead of features.")] = None,
    together: Together = False,
    device: Device = "auto",
) -> Indexed:
    """Find where every feature fires in a corpus; under INTERP_HOME unless --beside.

    Begun by torchrun, or with --together, its processes build the one index together (docs/scale.md).

    Raises InterpError when options contradict each other, and for a text or harvest that is not of the SAE's model.
    """
    from interp.activations import ActivationStore
    from interp.training import parallel
    from interp.training.one_folder import see_the_same
    from interp.workbench import INDEXED
    from interp.workbench.indexing import index_folder

    parallel.use_own_gpu()
    bench = open_sae(sae, device)
    together = see_the_same(index_folder(bench, beside=beside)) or together
    if acts and (corpus or neurons is not None):
        raise InterpError("--acts has its own text and hook point; leave --corpus and --neurons out.")
    if share and not beside:
        raise InterpError("--share is about an index beside its SAE; add --beside.")
    if neurons is not None:
        if beside or extend or into or together:
            raise InterpError(NOT_OF_NEURONS)
        made = bench.build_neuron_index(
            neurons, corpus or TEXT, tokens or INDEXED, keep=keep, memory_gib=memory, restart=restart
        )
        return Indexed(str(made))
    source = ActivationStore.open(acts) if acts else corpus or TEXT
    how: dict[str, Any] = {
        "keep": keep,
        "beside": beside,
        "share": share,
        "extend": extend,
        "restart": restart,
        "into": into,
    }
    return Indexed(str(bench.build_index(source, tokens, memory_gib=memory, together=together, **how)))


def meaning(
    sae: Sae,
    *,
    table: Annotated[
        str, Option("Write a row for each feature to this file, as Parquet, or as CSV where its name ends so.")
    ] = "",
    seed: Annotated[int, Option("Seed of the contexts that are compared.", low=0)] = 0,
) -> "Meaning":
    """How many features mean something that can be said, by class, on the held-out documents of the full index.

    Raises InterpError when there is no full index, or the file cannot be written.
    """
    measured = open_sae(sae).meaning(seed=seed)
    if table:
        with places.whole_file(Path(table)) as partial:
            written = measured.table
            written.to_csv(partial, index=False) if table.endswith(".csv") else written.to_parquet(partial, index=False)
    return measured


def lenses(
    sae: Sae,
    *,
    texts: Annotated[
        int,
        Option(
            "Stretches of 64 tokens in a pass of the Jacobian's fit; the tuned lens reads four times as many.", low=1
        ),
    ] = 4,
    rounds: Annotated[
        int,
        Option(
            "At most so many rounds of text for the Jacobian, half of them for each half; the tuned lens has four times as many. "
            "A fit ends earlier where its halves agree.",
            low=2,
        ),
    ] = 16,
    features: Annotated[int, Option("How many features, drawn at random, the lenses are judged on.", low=2)] = 100,
    beside: Annotated[
        bool,
        Option("Write what the winners say, and their matrices, into the SAE's folder, to be shared with it."),
    ] = False,
    restart: Restart = False,
    device: Device = "auto",
) -> "Lenses":
    """Fit lenses that read what features make the model say, at their own position and later, and judge which is right.

    A lens is a linear map from the SAE's hook point to the final residual: averaged Jacobians (next, later), least squares
    (tuned), or none (logit). They are fitted on the index's training and held-out documents until two halves of the text
    agree, and judged by what ablating and holding features really does in other documents. From then on pages, descriptions,
    promotes: and later: use the winner of each span and say how right it is. Stopped and called again, it goes on where it
    was; called again when it is done, it only shows what was found.

    Raises InterpError when the SAE has no index, the model no gradients, or the text is too short.
    """
    return open_sae(sae, device).make_lenses(
        texts=texts, rounds=rounds, features=features, beside=beside, restart=restart
    )
