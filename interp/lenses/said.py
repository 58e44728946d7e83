"""What is shown of what features are disposed to say: by span the tokens of the lens that was judged best, in one file.

<file>.safetensors    matrix.<lens>                     (O, D), float16, of each winner that is no logit lens
                      <span>.raised, <span>.lowered     (F, K) token ids, the strongest first, of tokens that the text has
                      <span>.raised_scores, <span>.lowered_scores
                      <span>.spread                     (F,) standard deviation of a feature's scores over all tokens
its description       what it was made from, as JSON: SAE, model, hook point, fits, judgement, winners

So that it is read without a model, and searched with no more than the decoder's rows. Matrices are rounded before they are read by,
so that what the file lists follows from what it holds. `workbench/says.py` says where files lie.

Axes    F feature, D width at the hook point, O width of the final residual, V vocabulary, K token listed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.lenses.lens import LATER, LOGIT, NEXT, ROWS, Lens
from interp.lenses.measure import SPANS
from interp.types import InterpError

FORMAT = 1
SEEN = 5
"""A token is listed when the index's text has it so often; what a model never reads is not what it says."""
LISTED = 10
"""Tokens listed of each feature, and as many of those it lowers; `judge.TOP`."""
SIDES = ("raised", "lowered")
UNJUDGED = "logit lens, not judged here"
TWO_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class Said:
    """The winners' lists of all features of one SAE."""

    about: Mapping[str, Any]
    """`sae_sha256`, `model_sha256`, `hook_name`, `fits` (by lens, positions and agreement of halves), `judged`."""
    matrices: Mapping[str, Float[Tensor, "O D"]]
    """By lens, as stored; the logit lens has none."""
    lists: Mapping[str, Tensor]
    """The other tensors of the file, by name."""

    def winner(self, span: str) -> str:
        """The lens that is shown for a span, `next` or `later`."""
        return str(self.about["judged"]["winners"][span]["lens"])

    def lens(self, span: str) -> Lens:
        """The same, to read directions by."""
        name = self.winner(span)
        return Lens(name, str(self.about["hook_name"]), self.matrices[name].float() if name != LOGIT else None)

    def tokens(self, span: str, side: str, feature: int) -> list[tuple[int, float]]:
        """(token id, score) of what a feature raises or lowers (`side`), strongest first."""
        ids, scores = (self.lists[f"{span}.{side}{end}"][feature] for end in ("", "_scores"))
        return list(zip(ids.tolist(), scores.tolist(), strict=True))

    def spread(self, span: str) -> Float[Tensor, " F"]:
        """By feature, the standard deviation of its scores over all tokens of the model."""
        return self.lists[f"{span}.spread"].float()

    def sentence(self, span: str) -> str:
        """How right the lens of a span was, in words."""
        judged = self.about["judged"]
        winner, chance = judged["winners"][span], judged["chance"][f"precision ablated {span}"]
        mean, low, high = winner["precision"]
        where = "at the same position" if span == NEXT else "over the 16 tokens that follow"
        if mean is None or math.isnan(mean):  # after a model's last block nothing reaches a later position
            return f"{winner['lens']} lens, not judged: no feature that was edited changed the logits {where}"
        logit = "" if winner["lens"] == LOGIT else f", {mean - winner['over_logit'][0]:.0%} by the logit lens"
        return (
            f"{winner['lens']} lens: of its first ten tokens {mean:.0%} ({low:.0%} to {high:.0%}) are among the 100 that really rise "
            f"most {where} when a feature is ablated or held{logit}, {chance:.1%} by chance; {judged['features']} features"
        )


@torch.inference_mode()
def list_tokens(
    lenses: Mapping[str, Lens],
    judged: Mapping[str, Any],
    rows_FD: Float[Tensor, "F D"],
    readout_OV: Float[Tensor, "O V"],
    among_V: Bool[Tensor, " V"],
    about: Mapping[str, Any],
) -> Said:
    """What the winners of a judgement say of these decoder rows, of the tokens marked.

    Raises InterpError when a winner is not among the lenses: they were fitted anew after they had been judged.
    """
    winners = {span: str(judged["winners"][span]["lens"]) for span in SPANS}
    lost = sorted(set(winners.values()) - set(lenses))
    if lost:
        raise InterpError(f"the {lost[0]} lens was judged and is not here any more; fit and judge again.")
    fitted = {name: lenses[name] for name in dict.fromkeys(winners.values()) if name != LOGIT}
    matrices = {name: _rounded(lens) for name, lens in fitted.items()}
    fits = {
        name: {key: lens.about.get(key) for key in ("recipe", "positions", "enough", "agreement")}
        for name, lens in fitted.items()
    }
    said = Said({"format": FORMAT, **about, "fits": fits, "judged": dict(judged)}, matrices, {})
    lists: dict[str, Tensor] = {}
    for span in SPANS:
        lists |= {f"{span}.{name}": x for name, x in listed(said.lens(span), rows_FD, readout_OV, among_V).items()}
    return Said(said.about, matrices, lists)


def _rounded(lens: Lens) -> Tensor:
    assert lens.matrix_OD is not None
    half = lens.matrix_OD.cpu().half()
    return half if bool(half.isfinite().all()) else lens.matrix_OD.cpu().float()


@torch.inference_mode()
def listed(
    lens: Lens, rows_FD: Float[Tensor, "F D"], readout_OV: Float[Tensor, "O V"], among_V: Bool[Tensor, " V"]
) -> dict[str, Tensor]:
    """The tensors of one span: raised, lowered, their scores, and the spread."""
    count = min(LISTED, int(among_V.sum()))
    found: dict[str, list[Tensor]] = {name: [] for name in ("raised", "raised_scores", "lowered", "lowered_scores")}
    spread = []
    for some_PD in rows_FD.split(ROWS):
        scores_PV = lens.scores(some_PD, readout_OV)
        spread.append(scores_PV.std(1, correction=0))
        for side, sign in zip(SIDES, (1, -1), strict=True):
            top = (sign * scores_PV).masked_fill(~among_V, -torch.inf).topk(count)
            found[side].append(top.indices)
            found[f"{side}_scores"].append(sign * top.values)
    made = {name: torch.cat(each) for name, each in found.items()}
    ids = {name: x.to(torch.int32) if name in SIDES else x.half() for name, x in made.items()}
    return ids | {"spread": torch.cat(spread)}


# ---- on disk ----


def save_said(path: Path, said: Said) -> None:
    """Write the file, whole or not at all."""
    tensors = {f"matrix.{name}": matrix for name, matrix in said.matrices.items()} | dict(said.lists)
    tensors = {name: _narrow(x).contiguous() for name, x in tensors.items()}
    with places.whole_file(path) as partial:
        save_file(tensors, partial, metadata={"about": json.dumps(said.about, sort_keys=True)})


def _narrow(x: Tensor) -> Tensor:
    """Ids in two bytes where they fit."""
    return x.to(torch.uint16) if x.dtype == torch.int32 and (not x.numel() or int(x.max()) < TWO_BYTES) else x


def load_said(path: Path, sae_sha256: str, model_sha256: str, features: int) -> Said:
    """What a file holds; InterpError when it is damaged, of a later version, or of other weights."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, ValueError):
        raise InterpError(f"{path} cannot be read: it was cut short or changed; {AGAIN}.") from None
    kinds = {"format": int, "sae_sha256": str, "model_sha256": str, "hook_name": str, "fits": dict, "judged": dict}
    wrong = places.unlike(about, kinds)
    if not wrong and about["format"] > FORMAT:
        raise InterpError(f"{path} was written by a later version of interp; update it, or {AGAIN}.")
    for what, here in (("sae_sha256", sae_sha256), ("model_sha256", model_sha256)):
        if not wrong and about[what] != here:
            whose = "SAE" if what == "sae_sha256" else "model"
            raise InterpError(
                f"{path} says what features of another {whose} promote ({about[what][:14]}…, and this one is {here[:14]}…); {AGAIN}."
            )
    matrices = {name.partition(".")[2]: x for name, x in tensors.items() if name.startswith("matrix.")}
    lists = {name: _wide(x) for name, x in tensors.items() if not name.startswith("matrix.")}
    said = Said(about, matrices, lists)
    if wrong or not _is_whole(said, features):
        raise InterpError(f"{path} does not hold what is listed of {features:,} features; {AGAIN}.")
    return said


AGAIN = "delete it, and let `interp lenses SAE` write it again"


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.int32) if x.dtype == torch.uint16 else x


def _is_whole(said: Said, features: int) -> bool:
    names = ("raised", "raised_scores", "lowered", "lowered_scores", "spread")
    if any(len(said.lists.get(f"{span}.{name}", ())) != features for span in SPANS for name in names):
        return False
    try:
        return all(said.winner(span) in (LOGIT, *said.matrices) and said.sentence(span) for span in (NEXT, LATER))
    except (KeyError, TypeError, ValueError, IndexError):
        return False
