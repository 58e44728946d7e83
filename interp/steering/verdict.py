"""Does a feature move the output, does it fire on anything one can name, or both: judged beside controls.

Axes    P prompt, N direction, V vocabulary.
Source  Arad et al. 2025, "SAEs are good for steering, if you select the right features": input and output scores.
        The tests against matched features are Monte Carlo permutation tests (Phipson & Smyth 2010): to exceed all of
        19 exchangeable controls has a chance of 1 in 20.
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
from interp.steering.controls import MATCHED, NOISES, draw_controls, opposite
from interp.steering.detection import Detection, Figure, detection, named, sentence
from interp.steering.edits import Add, Direction, Named, describe_feature
from interp.steering.measures import measure_texts
from interp.steering.sampling import Sampling
from interp.steering.steerable import Steerable
from interp.steering.steered import Rows, SteeredModel, SteerRequest
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
    clean_level: float | None = None
    clean_share: float = 1.0
    """Detection is of examples above this level, and this share of the feature's firings is; see `Detection`."""


def promoted(steered: SteeredModel, vectors_ND: Float[Tensor, "N D"], count: int = TARGETS) -> list[list[int]]:
    """The tokens whose logits each direction raises most, read straight by the unembedding.

    Raises InterpError when the unembedding reads another width.
    """
    unembed_VD, gain_D = steered.unembedding
    if vectors_ND.shape[1] != len(gain_D):
        raise InterpError(
            f"the unembedding of {steered.model.name} reads width {len(gain_D)}, not {vectors_ND.shape[1]}, so the tokens "
            "promoted there are unknown; name targets, and leave the verdict out."
        )
    logits_NV = (vectors_ND.to(unembed_VD.device).float() * gain_D) @ unembed_VD.T
    tokens: list[list[int]] = logits_NV.topk(min(count, logits_NV.shape[1]), dim=1).indices.tolist()
    return tokens


@torch.inference_mode()
def judge(steered: SteeredModel, of: Steerable, *, prompts: Sequence[str] = OPENINGS, seed: int = 0) -> Verdict:
    """The verdict on one feature; about 50 short passes a prompt, and two texts of GENERATED tokens.

    Raises InterpError when the feature cannot be steered, or the unembedding does not read what it writes.
    """
    steered.model.check_causal("a verdict")
    ids = steered.tokenize(prompts)
    sampling = Sampling(max_new_tokens=min(GENERATED, steered.model.n_ctx - max(map(len, ids))))
    request = steered.request(ids, [[], [of.edit(of.largest)]], sampling)
    ((bound,),) = request.variants[1:]
    (targets,) = promoted(steered, bound.vector[None])
    along: list[Named | None] = [None, *draw_controls(bound, of.matched[:MATCHED], NOISES, seed), opposite(bound)]
    base = _next(steered, ids, [[] for _ in ids])
    held = [[of.edit(of.largest, along=other)] for other in along for _ in ids]
    in_range = _next(steered, ids * len(along), steered.bind_rows(held))
    wanted = torch.tensor(targets)
    base_P = base[:, wanted].logsumexp(-1)
    shift_NP = in_range[:, wanted].logsumexp(-1).view(len(along), -1) - base_P
    kl_NP = _kl(in_range, base.repeat(len(along), 1)).view(len(along), -1)
    amplified = [AMPLIFY * largest for largest in _largest_at_end(steered, ids, bound)]
    unit = float(bound.vector.norm()) if bound.feature is None else 1.0
    # From here the opposite direction is left out.
    pushed = [
        [Add(feature=of.feature, strength=s / unit, where="from:-1", along=other)]
        for other in along[:-1]
        for s in amplified
    ]
    pushed_CV = _next(steered, ids * (len(along) - 1), steered.bind_rows(pushed))
    score_N = _output_scores(pushed_CV, wanted).view(len(along) - 1, -1).mean(1)
    return _verdict(steered, of, targets, shift_NP, kl_NP, score_N, _texts(request, bound, targets))


def _next(
    steered: SteeredModel, prompts: Sequence[Sequence[int]], rows: Rows, batch: int = 104
) -> Float[Tensor, "C V"]:
    """Log-probabilities of the token after each prompt under its own edits."""
    parts = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        tokens_BT, real_BT = steered.model.padded(prompts[part])
        edits = steered.compile_bound(rows[part], tokens_BT, real_BT)
        run = steered.model.run(tokens_BT, edits=edits, logits=True, real_BT=real_BT, last=1)
        assert run.logits is not None
        parts.append(run.logits[:, -1].float().log_softmax(-1).cpu())
    return torch.cat(parts)


def _kl(logp: Tensor, reference: Tensor) -> Tensor:
    return (logp.exp() * (logp - reference)).sum(-1)


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
    targets: list[int],
    shift_NP: Tensor,
    kl_NP: Tensor,
    score_N: Tensor,
    texts: tuple[Figure, float, float],
) -> Verdict:
    shift = bootstrap(shift_NP[0].double().numpy())
    shifts = shift_NP[1:-1].mean(1).tolist()
    scores = score_N[1:].tolist()
    detected, others, firings = _detected(of, steered.folded)
    strongest = [peak.token for peak in (of.peaks or {}).get(_own(of), ()) if peak.strongest]
    share = 0.0 if math.isnan(detected.range[0]) else detected.range[0]
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
        targets=[steered.vocabulary()[token] for token in targets],
        strength=of.largest,
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
        detection_strongest=detected.strongest,
        detection_fifths=detected.fifths,
        detection_range=detected.range,
        detection_reserved=detected.reserved,
        examples=detected.tried,
        examples_reserved=detected.tried_reserved,
        firings=firings,
        firings_at_least=not of.all_firings,
        input_score=sum(token in targets for token in strongest) / len(strongest) if strongest else 0.0,
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
        f"tokens {math.exp(made.shift[0]):.3g} times as likely (controls at most {math.exp(max(made.shift_controls)):.3g}); "
        f"output score {made.output_score:.3g} (controls at most {max(made.output_score_controls):.3g}); the text has "
        f"{made.perplexity_ratio[0]:.2g} times the perplexity ({made.perplexity_ratio[1]:.2g} to "
        f"{made.perplexity_ratio[2]:.2g}), and {made.loops:.0%} of texts loop ({made.loops_unsteered:.0%} unsteered). "
        f"Detection: {sentence(detected)} (controls at most {max(made.detection_controls, default=0.0):.0%}){named_}; input "
        f"score {made.input_score:.2f}."
    )
