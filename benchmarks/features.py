"""SAEs of one hook point of SmolLM2, measured alike: how they do on text of other kinds, and what their features mean.

    python recipes/smollm2.py texts harvest          # the index's text and the held-out one, once
    python benchmarks/features.py BEFORE AFTER … [--tokens 1300000]

FVU, ΔCE, L0 and dead features on the mix's held-out text, on the two texts that recipes are chosen by and on the two that judge;
and each feature's class (docs/meaning.md) over the same tokens of the recipe's index text. What was measured of an SAE
is kept in the cache. The last line says how many times the first one's share by meaning each other one has.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from common import report

from interp import places
from interp.checkpoint import Card, load
from interp.types import InterpError

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import smollm2

TEXTS = ("held_out", *smollm2.CHOOSING, *smollm2.JUDGING)
FIGURES = ("fvu", "fvu_interval", "delta_ce", "delta_ce_interval", "l0", "dead_share", "tokens")


def compared(folder: Path, tokens: int) -> dict[str, Any]:
    """The measures of one SAE, from the cache or made now."""
    card = Card.read(folder)
    sae, file = load(folder), smollm2.WORK / "compared" / f"{card.sae_sha256}-{tokens}.json"
    if not file.exists():
        places.write_json(file, smollm2.meaning(folder, tokens))
    texts = {name: smollm2.kept(sae, card, name) for name in TEXTS}
    return {"sae": card.name, "sae_sha256": card.sae_sha256, "texts": texts, "meaning": places.read_json(file)}


def share_ratio(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float, float]:
    """other's share by meaning over one's, with its 95 % interval (of the logarithm, features taken as independent)."""
    p, q = one["by_meaning"][0], other["by_meaning"][0]
    spread = 1.96 * math.sqrt((1 - p) / (p * one["features"]) + (1 - q) / (q * other["features"]))
    return q / p, q / p * math.exp(-spread), q / p * math.exp(spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="SAE")
    parser.add_argument("--tokens", type=int, default=smollm2.INDEX_TOKENS)
    given = parser.parse_args()
    try:
        found = [compared(folder, given.tokens) for folder in given.folders]
    except InterpError as error:
        sys.exit(str(error))
    for one in found:
        share, low, high = one["meaning"]["by_meaning"]
        print(f"{one['sae']}: {smollm2.line(one['texts'])}; by meaning {share:.1%} ({low:.1%} to {high:.1%})")
    ratios = {one["sae_sha256"]: share_ratio(found[0]["meaning"], one["meaning"]) for one in found[1:]}
    for value, low, high in ratios.values():
        print(f"by meaning {value:.2f} times the first one's share ({low:.2f} to {high:.2f})")
    report("features", {"saes": found, "by meaning, times the first one's": ratios, "index_tokens": given.tokens})


if __name__ == "__main__":
    main()
