"""What speaks against a label, the line over a feature's page, and figures measured again, against the slow and obvious."""

from dataclasses import replace

import numpy as np
import pytest

from interp.commands.inspecting import again, inspect_feature
from interp.evidence.contrary import SHOWN, find_contrary
from interp.evidence.headline import headline
from interp.types import InterpError
from interp.workbench import Workbench
from interp.workbench import again as measured
from interp.workbench.inspecting import contrary


def busy(index, least=30):
    """A feature that fires often."""
    return int(np.argmax(index.features["fires"].to_numpy() >= least))


def claim_of(index, feature):
    """A claim that is right of some of its firings: its most frequent token."""
    token = index.text(index.row(feature)["top_tokens"][:1])[0]
    return f"token:{token.strip() or token}"


def test_what_speaks_against_a_claim_is_every_firing_it_misses_and_every_place_it_names_in_vain(wb):
    index = wb.index
    feature = busy(index)
    position, value = index.fired(feature)
    level, claim = float(np.quantile(value.astype(float), 0.3)), claim_of(index, feature)
    found = find_contrary(index, feature, claim, level)
    word = claim.removeprefix("token:")
    above = {int(p): float(v) for p, v in zip(position, value, strict=True) if v > level and index.kept[p]}
    missed = [p for p in above if word not in index.vocabulary[index.tokens[p]]]
    assert (found.fired, found.outside) == (len(above), len(missed))
    split = index.documents["split"].to_numpy()[index.document_at]
    tried = index.kept & ((split == "labels") if (split == "labels").any() else True)
    held = [p for p in np.flatnonzero(tried).tolist() if word in index.vocabulary[index.tokens[p]]]
    assert found.held == len(held)
    assert found.silent == len([p for p in held if p not in above])
    shown = [example.position for example in found.beyond]
    assert set(shown) <= set(missed)
    assert len(shown) == min(SHOWN, len(set(index.document_at[missed].tolist())))
    assert [e.value for e in found.beyond] == sorted((e.value for e in found.beyond), reverse=True)
    if missed:
        assert found.beyond[0].value == pytest.approx(max(above[p] for p in missed))
    for example in found.short:
        assert word in example.tokens[example.peak]
        assert example.value <= level
    assert not found.lacks


def test_an_example_at_any_position_shows_what_is_stored_there(wb):
    index = wb.index
    feature = busy(index)
    position, value = index.fired(feature)
    for example in index.stretches(feature, [int(position[3]), int(position[-1]), 5]):
        low = example.position - example.peak
        there = dict(zip(position.tolist(), value.astype(float).tolist(), strict=True))
        assert example.values == [there.get(p, 0.0) for p in range(low, low + len(example.tokens))]
        assert example.value == there.get(example.position, 0.0)
        assert list(example.ids) == index.tokens[low : low + len(example.tokens)].tolist()


def test_a_label_without_a_claim_has_nothing_that_could_speak_against_it(wb):
    with pytest.raises(InterpError, match="it has no label"):
        contrary(wb, 3)
    wb.labels.set(3, "cats")
    with pytest.raises(InterpError, match="claims nothing that can be tried"):
        contrary(wb, 3)
    wb.labels.set(3, "cats", predicate="at:(token:/cat/)")
    assert contrary(wb, 3).sentence


def test_the_line_over_a_page_says_what_stands_and_never_another_labels_figures(embedded):
    evidence = embedded.evidence[11]
    label = embedded.labels.get(11)
    said = headline(label, "fires on x", evidence)
    assert said.verdict == evidence.label.verdict
    assert said.f1 == (evidence.label.f1, evidence.label.f1_low, evidence.label.f1_high)
    assert said.claim == evidence.label.claim
    other = headline(replace(label, text="paris", predicate="at:(token:/Paris/)"), "fires on x", evidence)
    assert (other.verdict, other.f1, other.claim) == ("not tried", None, "token:/Paris/")
    nothing = headline(None, "fires on x", None)
    assert (nothing.name, nothing.automatic, nothing.verdict) == ("fires on x", True, "not tried")


@pytest.mark.parametrize("figure", ["firing", "near", "promotes"])
def test_a_figure_measured_again_comes_out_and_a_falsified_one_does_not(wb, figure):
    feature = busy(wb.index)
    found = measured.run_again(wb, feature, figure)
    assert found.agrees
    assert found.rows
    page = wb.feature(feature)
    falsified = {
        "firing": {"examples": [replace(e, value=e.value * 1.5) for e in page.examples]},
        "near": {"nearest": [(f, c - 0.2) for f, c in page.nearest]},
    }.get(figure)
    if falsified is not None:
        assert not measured.FIGURES[figure](wb, replace(page, **falsified))[1]


def test_the_labels_trial_is_counted_again(wb):
    feature = busy(wb.index)
    wb.labels.set(feature, "it", predicate=f"at:({claim_of(wb.index, feature)})")
    rows, agrees, _ = measured.FIGURES["label"](wb, wb.feature(feature))
    assert agrees is None  # nothing was recorded
    now = {row.what: row.now for row in rows}
    found = contrary(wb, feature)
    split = wb.index.documents["split"].to_numpy()[wb.index.document_at] == "labels"
    position, value = wb.index.fired(feature)
    fires = split[position] & wb.index.kept[position] & (value.astype(float) > found.level)
    assert now["firings above the level"] == fires.sum()
    assert now["recall"] == pytest.approx(1 - found.silent / found.held)


def test_an_unknown_figure_is_a_sentence(checkpoint):
    with pytest.raises(InterpError, match="figure"):
        again(str(checkpoint), 3, "nothing")


def test_everything_on_a_page_comes_together(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    bench = Workbench.open(checkpoint)
    feature = busy(bench.index)
    of = inspect_feature(str(checkpoint), feature)
    assert of.headline.automatic
    assert "it has no label" in of.contrary_lacks
    assert f"Feature {feature} (unlabelled)" in of.citation
    assert {f for f, _ in of.shown.page.nearest} <= set(of.names)
    assert {origin.figure for origin in of.origins.values()} - {""} == set(measured.FIGURES)
    assert f'"feature": {feature}' in of.json
