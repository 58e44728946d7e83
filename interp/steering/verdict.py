"""Does a feature move the output, does it fire on anything one can name, or both: judged beside controls.

Axes    P prompt, N direction, V vocabulary.
Source  Arad et al. 2025, "SAEs are good for steering, if you select the right features": input and output scores.
        The tests against matched features are Monte Carlo permutation tests (Phipson & Smyth 2010): to exceed all of
        19 exchangeable controls has a chance of 1 in 20.
        The tokens are measured (`targets.py`) on other openings than these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae import join
from interp.statistics import bootstrap
from interp.steering.binding import BoundEdit, number
from interp.steering.detection import Detection, Figure, detection, named, sentence
from interp.steering.edits import Add, Direction, describe_feature
from interp.steering.measures import measure_texts
from interp.steering.sampling import Sampling
from interp.steering.steerable import Steerable
from interp.steering.steered import SteeredModel, SteerRequest
from interp.steering.targets import Targets, logprobs_after, measure_targets

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
AMPLIFY = 10.0
"""Output score: how many times the largest activation at the prompt's last position is added there."""
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
class Verdict:
    """Controller, detector, both or neither, and every number that says so. Intervals are (mean, low, high)."""

    verdict: str
    sentence: str
    moves: bool
    """Beyond its controls, and beyond noise with tokens of its own; a controller is `fluent` too."""
    fluent: bool
    """Whether text generated at `strength` stays text."""
    fires: bool
    targets: list[str]
    """The tokens that it makes likely, as measured on other openings."""
    strength: float
    shift: tuple[float, float, float]
    """Of the target tokens' log-probability after the openings, the feature held at `strength`; over prompts."""
    shift_controls: list[float]
    """The same targets, the same amount along each matched feature, then along each noise."""
    shift_noises: list[float]
    """Of each noise, tokens that were measured for it by the same rule."""
    flipped: float
    """The same amount along the opposite direction."""
    output_score: float
    output_score_controls: list[float]
    output_score_noises: list[float]
    noises_that_move: int
    """Of these noises, how many would be said to move the output, by the same rule and with tokens of their own."""
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
    clean_level: float | None = None
    clean_share: float = 1.0
    """Detection is of examples above this level, and this share of the feature's firings is; see `Detection`."""


@dataclass(frozen=True, eq=False)
class _Moved:
    """How far a direction moves the tokens that it makes likely, beside its controls."""

    shift: Figure
    shift_controls: list[float]
    """On the same tokens."""
    score: float
    score_controls: list[float]

    def beyond(self, noises: Sequence["_Moved"]) -> bool:
        """Twice at least and more than each control, by the lower end; and more than noise moves tokens of its own."""
        alone = self.shift[1] > max(DOUBLE, *self.shift_controls) and self.score > max(self.score_controls)
        return alone and all(self.shift[0] > noise.shift[0] and self.score > noise.score for noise in noises)


@torch.inference_mode()
def judge(
    steered: SteeredModel,
    of: Steerable,
    *,
    prompts: Sequence[str] = OPENINGS,
    seed: int = 0,
    targets: Targets | None = None,
) -> Verdict:
    """The verdict on one feature; about 75 short passes a prompt, and two texts of GENERATED tokens.

    `targets` are its own, where they have been measured already. Raises InterpError when the feature cannot be steered.
    """
    steered.model.check_causal("a verdict")
    ids = steered.tokenize(prompts)
    sampling = Sampling(max_new_tokens=min(GENERATED, steered.model.n_ctx - max(map(len, ids))))
    request = steered.request(ids, [[], [of.edit(of.largest)]], sampling)
    ((bound,),) = request.variants[1:]
    targets = targets or measure_targets(steered, of, seed=seed)
    along = targets.along
    base_PV = logprobs_after(steered, ids, [[] for _ in ids])
    held = [[of.edit(of.largest, along=other)] for other in along for _ in ids]
    held_APV = logprobs_after(steered, ids * len(along), steered.bind_rows(held)).unflatten(0, (-1, len(ids)))
    amplified = [AMPLIFY * largest for largest in _largest_at_end(steered, ids, bound)]
    unit = float(bound.vector.norm()) if bound.feature is None else 1.0
    # From here the opposite direction is left out.
    pushed = [
        [Add(feature=of.feature, strength=s / unit, where="from:-1", along=other)]
        for other in along[:-1]
        for s in amplified
    ]
    pushed_APV = logprobs_after(steered, ids * (len(along) - 1), steered.bind_rows(pushed)).unflatten(0, (-1, len(ids)))
    moved = {place: _moved(targets, place, base_PV, held_APV, pushed_APV) for place in targets.tokens}
    wanted = torch.tensor(targets.tokens[0])
    flipped = float((held_APV[-1][:, wanted].logsumexp(-1) - base_PV[:, wanted].logsumexp(-1)).mean())
    kl_A = (held_APV.exp() * (held_APV - base_PV)).sum(-1).mean(1)[:-1].tolist()
    return _verdict(steered, of, targets, moved, flipped, kl_A, _texts(request, bound, targets.tokens[0]))


def _moved(targets: Targets, place: int, base_PV: Tensor, held_APV: Tensor, pushed_APV: Tensor) -> _Moved:
    wanted, controls = torch.tensor(targets.tokens[place]), targets.controls(place)
    shift_AP = held_APV[:, :, wanted].logsumexp(-1) - base_PV[:, wanted].logsumexp(-1)
    score_A = torch.stack([_output_scores(pushed_PV, wanted).mean() for pushed_PV in pushed_APV])
    return _Moved(
        shift=bootstrap(shift_AP[place].double().numpy()),
        shift_controls=shift_AP[controls].mean(1).tolist(),
        score=float(score_A[place]),
        score_controls=score_A[controls].tolist(),
    )


def _largest_at_end(steered: SteeredModel, prompts: Sequence[Sequence[int]], bound: BoundEdit) -> list[float]:
    """The largest activation of any feature at each prompt's last position."""
    home = steered.saes[""] if bound.feature is None else bound.feature.home
    tokens_BT, real_BT = steered.model.padded(prompts)
    activations = steered.model.run(tokens_BT, list(home.reads), real_BT=real_BT).activations
    x_BTD = join(home.sae, {name: activations[name] for name in home.reads})
    return [float(values.max()) for values in home.sae.encode(x_BTD[:, -1].float())]


def _output_scores(logp_CV: Tensor, wanted: Tensor) -> Float[Tensor, " C"]:
    """(1 - the best target's rank / V) times its probability (Arad et al.'s output score)."""
    best_C = logp_CV[:, wanted].amax(1)
    rank_C = (logp_CV > best_C[:, None]).sum(1)
    return (1 - rank_C / logp_CV.shape[1]) * best_C.exp()


def fluent(ratio: tuple[float, float, float], more_loops: float) -> bool:
    """Whether text stays text: see FLUENT_TIMES and FLUENT_LOOPS; `ratio` is of perplexities, with its interval."""
    return ratio[2] <= FLUENT_TIMES and more_loops <= FLUENT_LOOPS


def perplexity_ratio(steered: Sequence[float], unsteered: Sequence[float], shape: tuple[int, ...]) -> Figure:
    """The geometric mean of steered texts' perplexity over that of the unsteered ones, from logarithms, pair by pair."""
    mean, low, high = bootstrap((np.asarray(steered) - np.asarray(unsteered)).reshape(shape))
    return math.exp(mean), math.exp(low), math.exp(high)


def _texts(request: SteerRequest, bound: BoundEdit, targets: list[int]) -> tuple[Figure, float, float]:
    """(ratio of perplexities, share of loops steered, unsteered) of texts generated with the feature held at its largest
    activation, and without it."""
    ids, steered = request.prompts, request.steered
    answers = request.generate([(p, variant, 0) for variant in (0, 1) for p in range(len(ids))])
    measures = measure_texts(steered, ids * 2, answers, bound.feature, targets, None)
    without, held = measures[: len(ids)], measures[len(ids) :]
    ratio = perplexity_ratio([t.log_perplexity for t in held], [t.log_perplexity for t in without], (len(ids),))
    return ratio, sum(t.loops for t in held) / len(ids), sum(t.loops for t in without) / len(ids)


def _detected(of: Steerable, folded: Sequence[str]) -> tuple[Detection, list[float], float]:
    """(of the feature, of each matched feature's examples against the feature's, share of firings on named tokens)."""
    if of.peaks is None or isinstance(of.feature, Direction):
        return detection([], folded), [], math.nan
    feature = number(of.feature)
    own = of.peaks[feature]
    others = [detection(peaks, folded, own).range[0] for other, peaks in of.peaks.items() if other != feature]
    own_detection = replace(detection(own, folded), clean_level=of.clean_level, clean_share=of.clean_share)
    words = named(own, folded)
    on = sum(times for token, times in of.firings.items() if folded[token] in words)
    share = on / of.fires if of.fires else math.nan
    return own_detection, [0.0 if math.isnan(x) else x for x in others], share


def _verdict(
    steered: SteeredModel,
    of: Steerable,
    targets: Targets,
    moved: dict[int, _Moved],
    flipped: float,
    kl_A: list[float],
    texts: tuple[Figure, float, float],
) -> Verdict:
    own, noises = moved[0], {place: moved[place] for place in targets.noises}
    detected, others, firings = _detected(of, steered.folded)
    strongest = [peak.token for peak in (of.peaks or {}).get(_own(of), ()) if peak.strongest]
    share = 0.0 if math.isnan(detected.range[0]) else detected.range[0]
    moves = own.beyond(list(noises.values()))
    noisy = [one.beyond([noises[n] for n in noises if n != place]) for place, one in noises.items()]
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
        targets=[steered.vocabulary()[token] for token in targets.tokens[0]],
        strength=of.largest,
        shift=own.shift,
        shift_controls=own.shift_controls,
        shift_noises=[noise.shift[0] for noise in noises.values()],
        flipped=flipped,
        output_score=own.score,
        output_score_controls=own.score_controls,
        output_score_noises=[noise.score for noise in noises.values()],
        noises_that_move=sum(noisy),
        kl=kl_A[0],
        kl_controls=kl_A[1:],
        perplexity_ratio=ratio,
        loops=loops,
        loops_unsteered=loops_plain,
        detection=share,
        detection_controls=others,
        detection_strongest=detected.strongest,
        detection_fifths=detected.fifths,
        detection_range=detected.range,
        detection_reserved=detected.reserved,
        examples=detected.tried,
        examples_reserved=detected.tried_reserved,
        firings=firings,
        firings_at_least=not of.all_firings,
        input_score=sum(token in targets.tokens[0] for token in strongest) / len(strongest) if strongest else 0.0,
        clean_level=of.clean_level,
        clean_share=of.clean_share,
    )
    return replace(made, sentence=_sentence(made, describe_feature(of.feature), detected))


def _own(of: Steerable) -> int:
    return -1 if isinstance(of.feature, Direction) else number(of.feature)


def _sentence(made: Verdict, name: str, detected: Detection) -> str:
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
        f"tokens {math.exp(made.shift[0]):.3g} times as likely (controls at most {math.exp(max(made.shift_controls)):.3g}, noise "
        f"with tokens of its own {math.exp(max(made.shift_noises)):.3g}); output score {made.output_score:.3g} (controls at most "
        f"{max(made.output_score_controls):.3g}, such noise {max(made.output_score_noises):.3g}); the text has "
        f"{made.perplexity_ratio[0]:.2g} times the perplexity ({made.perplexity_ratio[1]:.2g} to "
        f"{made.perplexity_ratio[2]:.2g}), and {made.loops:.0%} of texts loop ({made.loops_unsteered:.0%} unsteered). "
        f"Detection: {sentence(detected)} (controls at most {max(made.detection_controls, default=0.0):.0%}){named_}; input "
        f"score {made.input_score:.2f}."
    )
