"""Fidelity of dictionaries that write what they do not read, or several hook points, against slow ways to it."""

import math
from dataclasses import replace

import pytest
import torch

from interp.evals import evaluate
from interp.models import Edit
from interp.sae import SAE
from interp.types import Hook, InterpError
from tests.conftest import HOOK

EARLY, NEXT = "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"  # one tensor under two names
CUTOFF = 1e9


@pytest.fixture(scope="module")
def blocks(store):
    return replace(store.blocks, tokens_NT=store.blocks.tokens_NT[:4], document_NT=store.blocks.document_NT[:4])


def copies(width: int, reads, writes=None, scale: float = 1.0) -> SAE:
    """Every row as it is (or scaled): a feature for each number's positive part and one for its negative."""
    eye = torch.eye(width)
    W = torch.cat([eye, -eye], dim=1)
    return SAE(
        W_enc=W, b_enc=torch.zeros(2 * width), W_dec=scale * W.T, b_dec=torch.zeros(width),
        threshold=torch.zeros(2 * width), reads=reads, writes=writes or reads, centred=False,
    )  # fmt: skip


def slow_ce(model, blocks, edits_of) -> float:
    """Mean loss over predictions at a document's own tokens, block by block."""
    losses = []
    for row in blocks.tokens_NT:
        logits = model.run(row[None], edits=edits_of(row), logits=True).logits[0].double()
        for t in range(1, len(row) - 1):
            if row[t] != blocks.separator and row[t + 1] != blocks.separator:
                losses.append(float(torch.nn.functional.cross_entropy(logits[t], row[t + 1])))
    return math.fsum(losses) / len(losses)


def put(row, separator, change):
    """An edit that changes a document's own tokens."""

    def apply(x, site):
        own = (site.tokens_BT != separator) & (site.position_BT > 0)
        return torch.where(own[..., None], change(x), x)

    return apply


def test_a_transcoder_between_two_names_of_one_tensor_explains_all_of_it(tiny, blocks):
    width = tiny.width(EARLY)
    report = evaluate(tiny, copies(width, Hook(EARLY), Hook(NEXT)), blocks, norm_cutoff=CUTOFF)
    assert report.fvu < 1e-9
    assert abs(report.delta_ce) < 1e-5


def test_a_transcoder_is_measured_on_what_it_writes(tiny, blocks):
    """It writes twice the early tensor at a later hook point."""
    width = tiny.width(EARLY)
    sae = copies(width, Hook(EARLY), Hook(HOOK), scale=2.0)
    report = evaluate(tiny, sae, blocks, norm_cutoff=CUTOFF)
    seen = tiny.run(blocks.tokens_NT, [EARLY, HOOK]).activations
    own = blocks.real_NT()
    x, y = (seen[hook][own].double() for hook in (EARLY, HOOK))
    fvu = float((y - 2 * x).square().sum() / (y - y.mean(0)).square().sum())
    assert report.fvu == pytest.approx(fvu, rel=1e-5)
    made = {}

    def edits(row):
        made.clear()
        return [
            Edit(EARLY, lambda x, site: made.setdefault("x", x)),
            Edit(HOOK, put(row, blocks.separator, lambda y: 2 * made["x"])),
        ]

    assert report.ce_sae == pytest.approx(slow_ce(tiny, blocks, edits), rel=1e-5)
    assert report.ce == pytest.approx(slow_ce(tiny, blocks, lambda row: []), rel=1e-5)
    zero = [Edit(HOOK, put(None, blocks.separator, torch.zeros_like))]
    assert report.ce_zero == pytest.approx(slow_ce(tiny, blocks, lambda row: zero), rel=1e-5)


def test_a_crosscoder_is_put_in_at_every_hook_point_it_writes_from_what_an_untouched_pass_gives(tiny, blocks):
    width = tiny.width(EARLY)
    hooks = (Hook(EARLY, width), Hook(HOOK, width))
    whole = evaluate(tiny, copies(2 * width, hooks), blocks, norm_cutoff=CUTOFF)
    assert whole.fvu < 1e-9
    assert abs(whole.delta_ce) < 1e-5
    half = evaluate(tiny, copies(2 * width, hooks, scale=0.5), blocks, norm_cutoff=CUTOFF)
    assert half.l0 == pytest.approx(2 * width, abs=0.1)  # of each number its positive part or its negative

    def halved(row):
        clean = tiny.run(row[None], [EARLY, HOOK]).activations
        return [Edit(h, put(row, blocks.separator, lambda x, h=h: 0.5 * clean[h])) for h in (EARLY, HOOK)]

    assert half.ce_sae == pytest.approx(slow_ce(tiny, blocks, halved), rel=1e-5)
    seen, own = tiny.run(blocks.tokens_NT, [EARLY, HOOK]).activations, blocks.real_NT()
    mean = {hook: seen[hook][own].mean(0) for hook in seen}
    means = [Edit(h, put(None, blocks.separator, lambda x, h=h: mean[h].expand_as(x))) for h in mean]
    assert half.ce_mean == pytest.approx(slow_ce(tiny, blocks, lambda row: means), rel=1e-4)


def test_what_cannot_be_measured_says_why(tiny, blocks):
    width = tiny.width(EARLY)
    with pytest.raises(InterpError, match=f"writes {EARLY}, which the model reaches before {HOOK}"):
        evaluate(tiny, copies(width, Hook(HOOK), Hook(EARLY)), blocks, norm_cutoff=CUTOFF)
    both = (Hook(HOOK, width, model=1), Hook(HOOK, width, model=2))
    with pytest.raises(InterpError, match="hook points of several models, and only .* is open"):
        evaluate(tiny, copies(2 * width, both), blocks, norm_cutoff=CUTOFF)
