"""Does a feature move the output, does it fire on anything one can name, or both: judged by forward passes, beside controls.

Axes    P prompt, N direction, V vocabulary.
Source  Arad et al. 2025, "SAEs are good for steering, if you select the right features": input and output scores.
        The tests against matched features are Monte Carlo permutation tests (Phipson & Smyth 2010): to exceed all of
        19 exchangeable controls has a chance of 1 in 20.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.steering.edits import (
    Add,
    Clamp,
    Direction,
    FeatureEdit,
    Source,
    describe_source,
    hooked,
    number,
    row,
)
from interp.steering.intervals import bootstrap
from interp.steering.run import Stage
from interp.types import InterpError

OPENINGS = (
    "From my experience,",
    "I think that",
    "The most important thing is",
    "When we arrived, we saw",
    "It is well known that",
    "She looked at him and said",
    "In this section, we describe",
    "Yesterday morning,",
)
"""Neutral prompts; the first is Arad et al.'s."""
TARGETS = 20
"""Tokens that a feature is said to promote: the first of its decoder row read by the unembedding (logit lens)."""
AMPLIFY = 10.0
"""Output score: how many times the largest activation at the prompt's last position is added there."""
MATCHED, NOISES = 19, 5
DOUBLE = math.log(2.0)
"""The shift that counts as moving the output: the target tokens become at least twice as likely."""
HALF = 0.5
"""The share of examples that counts as firing on something one can name."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is steered, with what the index knows of it."""

    source: Source
    largest: float
    """Its largest activation on text; for a direction 1, the difference itself."""
    matched: tuple[int, ...] = ()
    """Features of the same SAE that fire about as often."""
    peaks: Mapping[int, Sequence[int]] | None = None
    """Token ids at the peaks of the examples, strongest first, of the feature and of each matched one."""
    words: str = ""
    """A text put in front of the prompt that asks for the same: the prompt-only baseline."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Controller, detector, both or neither, and every number that says so. Intervals are (mean, low, high)."""

    verdict: str
    sentence: str
    moves: bool
    fires: bool
    targets: list[str]
    strength: float
    shift: tuple[float, float, float]
    """Of the target tokens' log-probability after the openings, the feature held at `strength`; over prompts."""
    shift_controls: list[float]
    """The same targets, the same amount along each matched feature, then along each noise."""
    flipped: float
    """The same amount along the opposite direction."""
    output_score: float
    output_score_controls: list[float]
    kl: float
    kl_controls: list[float]
    """KL(steered ‖ unsteered) of the next token, nats."""
    detection: float
    """Share of every second example whose token at the peak is among those of the others."""
    detection_controls: list[float]
    """The same for the examples of each matched feature."""
    input_score: float
    """Share of the 20 strongest examples whose token at the peak is among the targets."""


def promoted(stage: Stage, vectors_ND: Float[Tensor, "N D"], count: int = TARGETS) -> list[list[int]]:
    """The tokens whose logits each direction raises most, read straight by the unembedding."""
    unembed_VD, gain_D = stage.unembedding
    if vectors_ND.shape[1] != len(gain_D):
        raise InterpError(
            f"the unembedding of {stage.model.name} reads width {len(gain_D)}, not {vectors_ND.shape[1]}, so the tokens "
            "promoted there are unknown; name targets, and leave the verdict out."
        )
    logits_NV = (vectors_ND.to(unembed_VD.device).float() * gain_D) @ unembed_VD.T
    found: list[list[int]] = logits_NV.topk(min(count, logits_NV.shape[1]), dim=1).indices.tolist()
    return found


def matched_features(density: np.ndarray, feature: int, count: int = MATCHED, seed: int = 0) -> tuple[int, ...]:
    """Features drawn from the four times `count` whose density is nearest, in logarithms; dead ones never."""
    known = np.flatnonzero(density > 0)
    known = known[known != feature]
    if len(known) < count:
        raise InterpError(f"{len(known)} other live features are fewer than the {count} controls; use a wider SAE.")
    distance = np.abs(np.log(density[known]) - math.log(max(float(density[feature]), 1e-12)))
    near = known[np.argsort(distance, kind="stable")[: 4 * count]]
    draw = np.random.default_rng([seed, feature])
    return tuple(int(f) for f in draw.choice(near, count, replace=False))


def noise(count: int, like: Tensor, hook_name: str, norm_cutoff: float, seed: int) -> list[Direction]:
    """Random directions of the row's norm."""
    draw = torch.Generator().manual_seed(seed * 1_000_003 + 7)
    vectors = torch.randn(count, len(like), generator=draw)
    vectors = vectors * (like.float().cpu().norm() / vectors.norm(dim=1, keepdim=True))
    return [
        Direction(name=f"noise {n}", hook_name=hook_name, vector=tuple(vector.tolist()), norm_cutoff=norm_cutoff)
        for n, vector in enumerate(vectors)
    ]


def flipped(like: Tensor, hook_name: str, norm_cutoff: float) -> Direction:
    return Direction(
        name="opposite", hook_name=hook_name, vector=tuple((-like.float()).tolist()), norm_cutoff=norm_cutoff
    )


def place(source: Source, stage: Stage) -> tuple[str, float]:
    """(hook point, norm cut-off) of a feature or direction."""
    if isinstance(source, Direction):
        return source.hook_name, source.norm_cutoff
    home = hooked(source, stage.saes)
    assert home is not None
    return home.hook_name, home.norm_cutoff


def controls(stage: Stage, subject: Subject, matched: int, noises: int, seed: int) -> list[Source]:
    """Matched features, then noise, each to be written along in place of the feature's row."""
    hook_name, cutoff = place(subject.source, stage)
    like = row(subject.source, stage.saes)
    features: list[Source] = [_sibling(subject.source, f) for f in subject.matched[:matched]]
    return [*features, *noise(noises, like, hook_name, cutoff, seed)]


def _sibling(source: Source, feature: int) -> Source:
    """Another feature of the same SAE."""
    return feature if isinstance(source, (int, Direction)) else replace(source, feature=feature)


def steering_edit(source: Source, strength: float, **more: Any) -> FeatureEdit:
    """Hold a feature at the strength, or add that much of a direction."""
    kind = Add if isinstance(source, Direction) else Clamp
    return kind(feature=source, strength=strength, **more)


@torch.inference_mode()
def judge(stage: Stage, subject: Subject, *, prompts: Sequence[str] = OPENINGS, seed: int = 0) -> Verdict:
    """The verdict on one feature; about 50 short passes a prompt, nothing is generated."""
    ids = stage.prompts(prompts, chat=False)
    stage.check([steering_edit(subject.source, subject.largest)])
    like = row(subject.source, stage.saes)
    (targets,) = promoted(stage, like[None])
    hook_name, cutoff = place(subject.source, stage)
    along = [None, *controls(stage, subject, MATCHED, NOISES, seed), flipped(like, hook_name, cutoff)]
    base = _next(stage, ids, [[] for _ in ids])
    held = [[steering_edit(subject.source, subject.largest, along=other)] for other in along for _ in ids]
    in_range = _next(stage, ids * len(along), held)
    wanted = torch.tensor(targets)
    base_P = base[:, wanted].logsumexp(-1)
    shift_NP = in_range[:, wanted].logsumexp(-1).view(len(along), -1) - base_P
    kl_NP = _kl(in_range, base.repeat(len(along), 1)).view(len(along), -1)
    amplified = [AMPLIFY * largest for largest in _largest_at_end(stage, ids, subject)]
    unit = float(like.norm()) if isinstance(subject.source, Direction) else 1.0
    # From here the flipped direction is left out.
    pushed = [
        [Add(feature=subject.source, strength=s / unit, where="from:-1", along=other)]
        for other in along[:-1]
        for s in amplified
    ]
    score_C = _output_scores(_next(stage, ids * (len(along) - 1), pushed), wanted)
    score_N = score_C.view(len(along) - 1, -1).mean(1)
    return _verdict(stage, subject, targets, shift_NP, kl_NP, score_N)


def _next(
    stage: Stage, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[FeatureEdit]], batch: int = 104
) -> Float[Tensor, "C V"]:
    """Log-probabilities of the token after each prompt under its own edits."""
    parts = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        tokens_BT, real_BT = stage.model.padded(prompts[part])
        run = stage.model.run(tokens_BT, edits=stage.compile(rows[part]), logits=True, real_BT=real_BT, last=1)
        assert run.logits is not None
        parts.append(run.logits[:, -1].float().log_softmax(-1).cpu())
    return torch.cat(parts)


def _kl(logp: Tensor, reference: Tensor) -> Tensor:
    return (logp.exp() * (logp - reference)).sum(-1)


def _largest_at_end(stage: Stage, prompts: Sequence[Sequence[int]], subject: Subject) -> list[float]:
    """The largest activation of any feature at each prompt's last position."""
    home = stage.saes[""] if isinstance(subject.source, Direction) else hooked(subject.source, stage.saes)
    assert home is not None
    tokens_BT, real_BT = stage.model.padded(prompts)
    x_BTD = stage.model.run(tokens_BT, [home.hook_name], real_BT=real_BT).activations[home.hook_name]
    return [float(values.max()) for values in home.sae.encode(x_BTD[:, -1].float())]


def _output_scores(logp_CV: Tensor, wanted: Tensor) -> Float[Tensor, " C"]:
    """(1 - the best target's rank / V) times its probability (Arad et al.'s output score)."""
    best_C = logp_CV[:, wanted].amax(1)
    rank_C = (logp_CV > best_C[:, None]).sum(1)
    return (1 - rank_C / logp_CV.shape[1]) * best_C.exp()


def detections(peaks: Mapping[int, Sequence[int]], feature: int, folded: Sequence[str]) -> tuple[float, list[float]]:
    """(of the feature, of each other one): the share of every second example whose token is among the feature's others.

    Tokens that differ by case and spaces count as one. The others' examples are held against the feature's tokens.
    """

    def words(tokens: Sequence[int]) -> list[str]:
        return [folded[token] for token in tokens]

    known = set(words(peaks[feature][::2]))

    def share(tokens: Sequence[int]) -> float:
        tried = words(tokens)[1::2]
        return sum(word in known for word in tried) / len(tried) if tried else 0.0

    return share(peaks[feature]), [share(tokens) for other, tokens in peaks.items() if other != feature]


def _verdict(
    stage: Stage, subject: Subject, targets: list[int], shift_NP: Tensor, kl_NP: Tensor, score_N: Tensor
) -> Verdict:
    shift = bootstrap(shift_NP[0].double().numpy())
    shifts = shift_NP[1:-1].mean(1).tolist()
    scores = score_N[1:].tolist()
    detection, entry = 0.0, 0.0
    others: list[float] = []
    if subject.peaks is not None and not isinstance(subject.source, Direction):
        feature = number(subject.source)
        detection, others = detections(subject.peaks, feature, stage.folded)
        strongest = list(subject.peaks[feature])[:TARGETS]
        entry = sum(token in targets for token in strongest) / len(strongest) if strongest else 0.0
    moves = shift[1] > max(DOUBLE, *shifts) and float(score_N[0]) > max(scores)
    fires = detection >= HALF and detection > max(others, default=0.0)
    kind = {(True, True): "both", (True, False): "controller", (False, True): "detector", (False, False): "neither"}
    made = Verdict(
        verdict=kind[moves, fires],
        sentence="",
        moves=moves,
        fires=fires,
        targets=[stage.vocabulary()[token] for token in targets],
        strength=subject.largest,
        shift=shift,
        shift_controls=shifts,
        flipped=float(shift_NP[-1].mean()),
        output_score=float(score_N[0]),
        output_score_controls=scores,
        kl=float(kl_NP[0].mean()),
        kl_controls=kl_NP[1:-1].mean(1).tolist(),
        detection=detection,
        detection_controls=others,
        input_score=entry,
    )
    return replace(made, sentence=_sentence(made, describe_source(subject.source)))


def _sentence(made: Verdict, name: str) -> str:
    words = {
        "both": "fires on tokens one can name and moves the output",
        "controller": "moves the output, and fires on no tokens one can name",
        "detector": "fires on tokens one can name, and does not move the output",
        "neither": "neither fires on tokens one can name nor moves the output",
    }[made.verdict]
    times = math.exp(made.shift[0])
    return (
        f"{name}: {made.verdict}. It {words}. Held at {made.strength:.3g} it makes its {len(made.targets)} tokens "
        f"{times:.3g} times as likely (controls at most {math.exp(max(made.shift_controls)):.3g}); output score "
        f"{made.output_score:.3g} (controls at most {max(made.output_score_controls):.3g}); {made.detection:.0%} of "
        f"held-out examples peak on a token seen before (controls at most {max(made.detection_controls, default=0.0):.0%}); "
        f"input score {made.input_score:.2f}."
    )
