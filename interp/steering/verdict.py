"""Does a feature move the output, does it fire on anything one can name, or both: judged beside controls.

Axes    P prompt, N direction, V vocabulary.
Source  Arad et al. 2025, "SAEs are good for steering, if you select the right features": input and output scores.
        The tests against matched features are Monte Carlo permutation tests (Phipson & Smyth 2010): to exceed all of
        19 exchangeable controls has a chance of 1 in 20.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.statistics import bootstrap
from interp.steering.detection import Detection, Figure, Peak, detection, named, sentence
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
from interp.steering.measures import text_measures
from interp.steering.run import Sampling, Stage, continue_rows
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
"""The share of examples, over the feature's range, that counts as firing on something one can name."""
FLUENT_TIMES = 2.0
"""Text stays text while its perplexity under the unsteered model is at most so many times that of unsteered text, by the
upper end of the interval: as much as a controller's tokens must become likelier, the text may become less likely."""
FLUENT_LOOPS = 0.25
"""... and while at most this share of the texts more end in a loop: two of eight. Loops have a low perplexity, so that the
first condition alone would let them pass."""
GENERATED = 40
"""Tokens of a text that is judged so."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is steered, with what the index knows of it."""

    source: Source
    largest: float
    """Its largest activation on text; for a direction 1, the difference itself."""
    matched: tuple[int, ...] = ()
    """Features of the same SAE that fire about as often."""
    peaks: Mapping[int, Sequence[Peak]] | None = None
    """Of the examples, strongest first, of the feature and of each matched one."""
    firings: Mapping[int, int] = field(default_factory=dict)
    """How often the feature fires on each token."""
    fires: int = 0
    """How often it fires at all."""
    all_firings: bool = True
    """Whether `firings` has all of them, or the commonest tokens only."""
    words: str = ""
    """A text put in front of the prompt that asks for the same: the prompt-only baseline."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Controller, detector, both or neither, and every number that says so. Intervals are (mean, low, high)."""

    verdict: str
    sentence: str
    moves: bool
    """Beyond its controls; a controller is `fluent` too."""
    fluent: bool
    """Whether text generated at `strength` stays text."""
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
    perplexity_ratio: Figure
    """Of texts generated with the feature held at `strength` over that of unsteered ones, under the unsteered model."""
    loops: float
    """Share of these texts that end in a loop."""
    loops_unsteered: float
    detection: float
    """Share of examples over the feature's range that peak on a token another document's example peaks on; 0 without."""
    detection_controls: list[float]
    """The same for the examples of each matched feature, against this one's."""
    detection_strongest: Figure
    detection_fifths: list[Figure]
    detection_range: Figure
    detection_reserved: Figure
    """See `Detection`."""
    examples: int
    examples_reserved: int
    """Examples that were tried, and those of them in documents kept from training."""
    firings: float
    """Share of all its firings that are on tokens two examples or more peak on."""
    firings_at_least: bool
    """Whether that share is a lower bound, the index having the commonest tokens only."""
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
    """The verdict on one feature; about 50 short passes a prompt, and two texts of GENERATED tokens."""
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
    return _verdict(stage, subject, targets, shift_NP, kl_NP, score_N, _texts(stage, subject, ids, targets))


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


def fluent(ratio: tuple[float, float, float], more_loops: float) -> bool:
    """Whether text stays text: see FLUENT_TIMES and FLUENT_LOOPS; `ratio` is of perplexities, with its interval."""
    return ratio[2] <= FLUENT_TIMES and more_loops <= FLUENT_LOOPS


def perplexity_ratio(steered: Sequence[float], plain: Sequence[float], shape: tuple[int, ...]) -> Figure:
    """The geometric mean of steered texts' perplexity over that of the unsteered ones, from logarithms, pair by pair."""
    mean, low, high = bootstrap((np.asarray(steered) - np.asarray(plain)).reshape(shape))
    return math.exp(mean), math.exp(low), math.exp(high)


def _texts(stage: Stage, subject: Subject, ids: list[list[int]], targets: list[int]) -> tuple[Figure, float, float]:
    """(ratio of perplexities, share of loops steered, unsteered) of texts generated with the feature held at its largest
    activation, and without it."""
    edit = steering_edit(subject.source, subject.largest)
    rows: list[list[FeatureEdit]] = [[] for _ in ids] + [[edit] for _ in ids]
    sampling = Sampling(max_new_tokens=min(GENERATED, stage.model.n_ctx - max(map(len, ids))))
    answers = continue_rows(stage, ids * 2, rows, [0] * len(rows), sampling)
    found = text_measures(stage, ids * 2, answers, subject.source, targets, None)
    plain, steered = found[: len(ids)], found[len(ids) :]
    ratio = perplexity_ratio([t.log_perplexity for t in steered], [t.log_perplexity for t in plain], (len(ids),))
    return ratio, sum(t.loops for t in steered) / len(ids), sum(t.loops for t in plain) / len(ids)


def _detected(subject: Subject, folded: Sequence[str]) -> tuple[Detection, list[float], float]:
    """(of the feature, of each matched feature's examples against the feature's, share of firings on named tokens)."""
    if subject.peaks is None or isinstance(subject.source, Direction):
        return detection([], folded), [], math.nan
    feature = number(subject.source)
    own = subject.peaks[feature]
    others = [detection(peaks, folded, own).range[0] for other, peaks in subject.peaks.items() if other != feature]
    words = named(own, folded)
    on = sum(times for token, times in subject.firings.items() if folded[token] in words)
    share = on / subject.fires if subject.fires else math.nan
    return detection(own, folded), [0.0 if math.isnan(x) else x for x in others], share


def _verdict(
    stage: Stage,
    subject: Subject,
    targets: list[int],
    shift_NP: Tensor,
    kl_NP: Tensor,
    score_N: Tensor,
    texts: tuple[Figure, float, float],
) -> Verdict:
    shift = bootstrap(shift_NP[0].double().numpy())
    shifts = shift_NP[1:-1].mean(1).tolist()
    scores = score_N[1:].tolist()
    found, others, firings = _detected(subject, stage.folded)
    strongest = [peak.token for peak in (subject.peaks or {}).get(_own(subject), ()) if peak.strongest]
    share = 0.0 if math.isnan(found.range[0]) else found.range[0]
    moves = shift[1] > max(DOUBLE, *shifts) and float(score_N[0]) > max(scores)
    fires = share >= HALF and share > max(others, default=0.0)
    ratio, loops, loops_plain = texts
    stays = fluent(ratio, loops - loops_plain)
    kind = {(True, True): "both", (True, False): "controller", (False, True): "detector", (False, False): "neither"}
    made = Verdict(
        verdict=kind[moves and stays, fires],
        sentence="",
        moves=moves,
        fluent=stays,
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
        perplexity_ratio=ratio,
        loops=loops,
        loops_unsteered=loops_plain,
        detection=share,
        detection_controls=others,
        detection_strongest=found.strongest,
        detection_fifths=found.fifths,
        detection_range=found.range,
        detection_reserved=found.reserved,
        examples=found.tried,
        examples_reserved=found.tried_reserved,
        firings=firings,
        firings_at_least=not subject.all_firings,
        input_score=sum(token in targets for token in strongest) / len(strongest) if strongest else 0.0,
    )
    return replace(made, sentence=_sentence(made, describe_source(subject.source), found))


def _own(subject: Subject) -> int:
    return -1 if isinstance(subject.source, Direction) else number(subject.source)


def _sentence(made: Verdict, name: str, found: Detection) -> str:
    fires = "fires on tokens one can name" if made.fires else "fires on no tokens one can name over its range"
    moves = "moves the output and leaves it text" if made.moves and made.fluent else "does not move the output"
    if made.moves and not made.fluent:
        moves = "moves the output, which is no longer text"
    named_ = ""
    if not math.isnan(made.firings):
        least = "at least " if made.firings_at_least else ""
        named_ = f"; {least}{made.firings:.0%} of all its firings are on such tokens"
    return (
        f"{name}: {made.verdict}. It {moves}, and {fires}. Held at {made.strength:.3g} it makes its {len(made.targets)} "
        f"tokens {math.exp(made.shift[0]):.3g} times as likely (controls at most {math.exp(max(made.shift_controls)):.3g}); "
        f"output score {made.output_score:.3g} (controls at most {max(made.output_score_controls):.3g}); the text has "
        f"{made.perplexity_ratio[0]:.2g} times the perplexity ({made.perplexity_ratio[1]:.2g} to "
        f"{made.perplexity_ratio[2]:.2g}), and {made.loops:.0%} of texts loop ({made.loops_unsteered:.0%} unsteered). "
        f"Detection: {sentence(found)} (controls at most {max(made.detection_controls, default=0.0):.0%}){named_}; input "
        f"score {made.input_score:.2f}."
    )
