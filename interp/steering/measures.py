"""What an edit did: to the next token while a given text is read, and to the text that was generated.

Axes    C row, T generated token, V vocabulary.
Units   Nats.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.steering.apply import own_positions
from interp.steering.binding import Feature
from interp.steering.edits import matches
from interp.steering.steered import Rows, SteeredModel

CHUNK = 12
"""Rows whose logits exist at a time: 12 x 41 x 49,152 float32 are 97 MB."""
LOOPS, LOOP_TOKENS = 3, 8


@dataclass(frozen=True, kw_only=True)
class TeacherForced:
    """Of one row whose text was given: means over the text's tokens."""

    target: float
    """Log-probability of the target tokens together."""
    kl: float
    """KL(edited ‖ unedited)."""


@dataclass(frozen=True, kw_only=True)
class TextMeasures:
    """Of one generated text."""

    log_perplexity: float
    """Under the unsteered model, nats a token."""
    distinct_1: float
    distinct_2: float
    distinct_3: float
    """Distinct n-grams as a share of all."""
    loops: bool
    """Ends in a stretch repeated at least three times, over at least 8 tokens."""
    fires: bool
    """The feature is active on it when the unsteered model reads it."""
    says_target: bool
    """Holds one of the target tokens."""
    matches: bool
    """The regular expression is found in it; False without one."""


def last_logprobs(
    steered: SteeredModel, texts: Sequence[Sequence[int]], rows: Rows, last: int
) -> Iterator[tuple[int, Float[Tensor, "T V"]]]:
    """(row, log-probabilities predicted at the last `last` positions) of each text under its own edits.

    What follows the first of these positions is the answer: for edits that ask where they are, it was generated.
    """
    for start in range(0, len(texts), CHUNK):
        part = slice(start, start + CHUNK)
        tokens_BT, real_BT = steered.model.padded(texts[part])
        prompt_B = real_BT.sum(1) - (last - 1)
        edits = steered.compile_bound(rows[part], tokens_BT, real_BT)
        run = steered.model.run(tokens_BT, edits=edits, logits=True, real_BT=real_BT, last=last, prompt_B=prompt_B)
        assert run.logits is not None
        for at, logits_TV in enumerate(run.logits):
            yield start + at, logits_TV.float().log_softmax(-1)


def teacher_force(
    steered: SteeredModel,
    answer: Sequence[int],
    before: Sequence[Sequence[int]],
    rows: Rows,
    plain: Sequence[int],
    targets: Sequence[int],
) -> tuple[TeacherForced, list[TeacherForced]]:
    """(unedited, each row): how likely the target tokens are at each token of `answer`, and how far all else moved.

    Row c reads `before[c]`, then the answer, under its edits; the unedited one reads `plain` before it.
    """
    count = len(answer)
    wanted = torch.tensor(list(targets), device=steered.model.device)
    # The position before the answer predicts its first token; the last token predicts nothing that is read.
    ((_, reference),) = last_logprobs(steered, [[*plain, *answer]], [[]], count + 1)
    reference = reference[:-1]

    def measured(logp_TV: Tensor) -> TeacherForced:
        kl = (logp_TV.exp() * (logp_TV - reference)).sum(-1)
        return TeacherForced(target=float(logp_TV[:, wanted].logsumexp(-1).mean()), kl=float(kl.mean()))

    edited = last_logprobs(steered, [[*each, *answer] for each in before], rows, count + 1)
    return measured(reference), [measured(logp_TV[:-1]) for _, logp_TV in edited]


def measure_texts(
    steered: SteeredModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    feature: Feature | None,
    targets: Sequence[int],
    regex: str | None,
) -> list[TextMeasures]:
    """Measures of each answer to its prompt, read by the unsteered model; `feature` is the steered one (None: a direction)."""
    texts = [steered.decode(answer) for answer in answers]
    said = matches(regex, texts) if regex else [False] * len(texts)
    measures = []
    for start in range(0, len(answers), CHUNK):
        part = slice(start, start + CHUNK)
        both = [[*p, *a] for p, a in zip(prompts[part], answers[part], strict=True)]
        tokens_BT, real_BT = steered.model.padded(both)
        longest = max(map(len, answers[part]))
        hooks = [] if feature is None else list(feature.home.reads)
        run = steered.model.run(tokens_BT, hooks, logits=True, real_BT=real_BT, last=longest + 1)
        assert run.logits is not None
        fires = [False] * len(both)
        if feature is not None:
            site, _ = steered.model.site(tokens_BT, real_BT)
            x, sinks = {name: run.activations[name] for name in hooks}, feature.home.sinks
            counted_BT = sinks.mask().counted(x, own_positions(site, sinks.separator))
            active_BT = (steered.activation(feature, x) > 0).to(counted_BT.device) & counted_BT
            fires = [bool(a[-len(t) :].any()) for a, t in zip(active_BT, answers[part], strict=True)]
        for at, answer in enumerate(answers[part]):
            nll = _loss(run.logits[at], answer)
            measures.append(_measures(answer, nll, fires[at], targets, said[start + at]))
    return measures


def _loss(logits_TV: Tensor, answer: Sequence[int]) -> float:
    """Mean loss of the answer's tokens, which are the last ones read."""
    logits = logits_TV[-len(answer) - 1 : -1].float()
    picked = logits.gather(1, torch.tensor(list(answer), device=logits.device)[:, None])[:, 0]
    return float((logits.logsumexp(-1) - picked).mean())


def _measures(answer: Sequence[int], nll: float, fires: bool, targets: Sequence[int], said: bool) -> TextMeasures:
    return TextMeasures(
        log_perplexity=nll,
        distinct_1=distinct(answer, 1),
        distinct_2=distinct(answer, 2),
        distinct_3=distinct(answer, 3),
        loops=loops(answer),
        fires=fires,
        says_target=not set(targets).isdisjoint(answer),
        matches=said,
    )


def distinct(tokens: Sequence[int], n: int) -> float:
    """Distinct n-grams as a share of all; nan when there is none."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def loops(tokens: Sequence[int]) -> bool:
    """Whether the tokens end in one stretch repeated at least `LOOPS` times, over at least `LOOP_TOKENS` tokens."""
    row = np.asarray(tokens)
    for period in range(1, len(row) // LOOPS + 1):
        span = max(LOOPS * period, LOOP_TOKENS)
        if span <= len(row) and bool((row[-span:-period] == row[-span + period :]).all()):
            return True
    return False
