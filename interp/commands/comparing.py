"""Several SAEs on the same tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from interp.commands.options import Device, Option

if TYPE_CHECKING:
    from interp.evals.comparison import Comparison


def compare(
    saes: Annotated[
        Sequence[str],
        Option(
            "Two or more SAEs of one model: folders of checkpoints, or of another library's format (SAELens, sparsify, "
            "dictionary_learning and others)."
        ),
    ],
    *,
    corpus: Annotated[str, Option("Text to compare on, of which the held-out split is read.")] = "wiki-en",
    tokens: Annotated[int, Option("How many tokens to compare on.", low=256)] = 50_000,
    l0: Annotated[
        Sequence[int],
        Option(
            "Compare at this many active features a token; repeatable. Without: 16, 32, 64 … as far as all go.", low=1
        ),
    ] = (),
    model: Annotated[str, Option("Model of SAEs whose files do not name it, or name it otherwise.")] = "",
    hook: Annotated[str, Option("Hook point of SAEs whose files do not name it.")] = "",
    html: Annotated[
        str, Option("Write the comparison with its plots to this file, a page that needs nothing else.")
    ] = "",
    device: Device = "auto",
) -> "Comparison":
    """Compare SAEs on the same tokens: as they are and at equal L0, with paired 95 % intervals over documents.

    One SAE is called better than another only where the interval of their difference leaves out 0. At equal L0 an SAE passes only
    the strongest of what it passes. Of an SAE without a card it is said what was assumed.

    Raises InterpError when an SAE cannot be opened, is of another model, or does not fit its hook point.
    """
    from interp.workbench.comparing import compare as measure

    if html:
        from interp import places

        places.check_writable(Path(html).parent)
    found = measure(saes, corpus, tokens, l0s=l0, model=model, hook=hook, device=device)
    if html:
        from interp.evals.comparison_page import comparison_html

        with places.whole_file(Path(html)) as partial:
            partial.write_text(comparison_html(found), encoding="utf-8")
    return found
