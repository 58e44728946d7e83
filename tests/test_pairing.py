"""Two things side by side: figures against the slow and obvious, intervals that hold what they should, and the page of them."""

import numpy as np
import pytest

from interp.commands.pairing import card_figures
from interp.types import InterpError
from interp.workbench import EMBEDDED
from interp.workbench.pairing import pair_features, pair_texts
from tests.test_ui import at_root, run, sheet  # noqa: F401  (the fixture acts by itself)

CATS, CODE = (
    ["A cat sat on the mat.", "The dog slept in London.", "The cat."],
    ["def add(a, b):", "return a + b", "print(1)"],
)


def test_two_features_are_counted_position_by_position(wb):
    index = wb.index
    a, b = np.argsort(-index.features["fires"].to_numpy().astype(float))[:2].tolist()
    found = pair_features(wb, a, wb, b)
    x, y = (dict(zip(p.tolist(), v.astype(float).tolist(), strict=True)) for p, v in map(index.fired, (a, b)))
    assert found.both == len(x.keys() & y.keys())
    assert found.only_one == len(x.keys() - y.keys())
    assert found.only_other == len(y.keys() - x.keys())
    kept = np.flatnonzero(index.kept)
    dense = [np.array([one.get(p, 0.0) for p in kept.tolist()]) for one in (x, y)]
    assert found.correlation == pytest.approx(np.corrcoef(*dense)[0, 1], abs=1e-4)
    W = wb.sae.W_dec
    assert found.cosine == pytest.approx(float(W[a] @ W[b] / W[a].norm() / W[b].norm()), abs=1e-5)
    density = found.figures[0]
    assert density.one == pytest.approx(1000 * len(x) / len(kept))
    assert density.difference == pytest.approx(density.other - density.one)
    low, high = density.interval
    assert low <= density.difference <= high
    assert found.documents == len(set(index.document_at[kept].tolist()))


def test_a_feature_is_told_apart_from_a_rarer_one_and_not_from_itself(wb):
    fires = wb.index.features["fires"].to_numpy().astype(float)
    often = int(np.argmax(fires))
    rare = int(np.argmin(np.where(fires > 0, fires, np.inf)))
    itself = pair_features(wb, often, wb, often)
    assert itself.correlation == pytest.approx(1.0, abs=1e-6)
    assert (itself.only_one, itself.only_other) == (0, 0)
    assert not any(figure.apart for figure in itself.figures)
    assert pair_features(wb, rare, wb, often).figures[0].apart


def test_what_an_index_cannot_say_is_said(embedded, wb):
    found = pair_features(embedded, 11, embedded, 6031)
    assert found.both is None
    assert "builds the full one" in found.lacks
    assert found.cosine is not None
    assert pair_features(wb, 1, embedded, 11).cosine is None  # another model's
    with pytest.raises(InterpError, match="no feature 99"):
        pair_features(wb, 1, wb, 99)


def test_texts_that_differ_are_told_apart_and_equal_ones_are_not(wb):
    cats = [
        f"{who} {did} {where}."
        for who in ("A cat", "The dog", "A bird")
        for did in ("sat", "slept")
        for where in ("here", "on it")
    ]
    code = [f"{name} = {left}[{n}]" for name in ("x", "y", "rows") for left in ("a", "b") for n in (0, 1)]
    for other in (code, code[:-1]):  # as pairs, and each side for itself
        found = pair_texts(wb, cats, other)
        assert found.paired == (len(other) == len(cats))
        assert any(figure.apart for figure in found.figures)
        assert all(figure.q <= 0.05 for figure in found.figures if figure.apart)
        assert found.searched >= len(found.features)
    few = pair_texts(wb, CATS, CODE)
    assert few.paired
    assert not any(figure.apart or figure.interval for figure in few.figures)
    largest = wb.largest([*CATS, *CODE], 256) / np.maximum(wb.index.features["max"].to_numpy(), 1e-6)
    first = few.figures[0]
    own = largest[:, few.features[0]]
    assert first.one == pytest.approx(own[:3].mean(), rel=1e-4)
    assert first.difference == pytest.approx(own[3:].mean() - own[:3].mean(), rel=1e-4)
    assert not any(figure.apart for figure in pair_texts(wb, CATS, CATS).figures)
    alone = pair_texts(wb, CATS[:1], CODE)
    assert not alone.paired
    assert all(figure.interval is None for figure in alone.figures)
    with pytest.raises(InterpError, match="first side has 0 texts"):
        pair_texts(wb, [], CODE)


def test_the_page_lays_two_features_two_saes_and_two_texts_side_by_side(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    app = run("compare", sae=str(checkpoint), a="3", b="5")
    shown = sheet(app)
    assert "How alike they are" in shown
    assert "Both fire at" in shown
    assert "firings per thousand tokens" in shown
    app = run("compare", sae=str(checkpoint), mode="texts", one="\n".join(CATS), other="\n".join(CODE))
    assert "3 pairs of texts" in sheet(app)
    assert "Which features tell two texts apart?" in run("compare", sae=str(checkpoint), mode="texts").markdown[0].value
    assert "in the URL is none of" in run("compare", mode="x").error[0].value
    assert "no feature 99" in run("compare", sae=str(checkpoint), a="1", b="99").error[0].value
    outside = run("compare", mode="saes", **{"with": str(tmp_path)})
    assert outside.error  # another SAE's folder is one of those that were given, or none
    other = EMBEDDED.replace("blocks.15", "blocks.5").replace("9216", "4608")
    assert "held out" in sheet(run("compare", mode="saes", **{"with": other}))
    assert "Beside which other SAE?" in run("compare", mode="saes").markdown[0].value
    assert set(card_figures(EMBEDDED)) & set(card_figures(other))
