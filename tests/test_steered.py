"""Verdicts of a steering study as a part of the evidence."""

import pytest

from interp.evidence import steered
from interp.evidence.card import FILE, Of, evidence_folder, join, write_evidence
from interp.evidence.part import write_part
from interp.types import InterpError
from interp.workbench.known_shares import evidence_section

ROWS = [
    {"feature": 3, "verdict": "both", "moves": True, "fluent": True, "fires": True, "strength": 8.0, "shift": (2.0, 1.0, 3.0), "shift_controls": [0.1, 0.5], "shift_noises": [0.2, 0.7], "targets": [" algebra", "s", "c", "d", "e", "f", "g"]},
    {"feature": 1, "verdict": "neither", "moves": True, "fluent": False, "fires": False, "strength": 4.0, "shift": (1.0, 0.8, 1.2), "shift_controls": [0.2], "shift_noises": [0.1], "targets": [" a"]},
    {"feature": 5, "verdict": "detector", "moves": False, "fluent": True, "fires": True, "strength": 2.0, "shift": (0.0, -0.2, 0.2), "shift_controls": [0.3], "shift_noises": [0.1], "targets": [" a"]},
]  # fmt: skip


@pytest.fixture
def kept(wb, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    folder = evidence_folder(wb.card.sae_sha256)
    folder.mkdir(parents=True)
    table = steered.make_steering(ROWS, {"sae_sha256": wb.card.sae_sha256, "drawn": "by hand"})
    write_part(table, folder / steered.FILE)
    return folder / steered.FILE


def test_a_verdict_is_told_and_what_does_not_steer_is_told_first(wb, kept):
    known = {row["feature"]: row for row in joined(wb, kept).to_pylist()}
    said = {
        feature: [(each.shown, each.text) for each in steered._record(row).said()] for feature, row in known.items()
    }
    ((shown, text),) = said[3]
    assert shown
    assert (
        "steers the model (both): held at 8 it makes ‘·algebra’ ‘s’ ‘c’ ‘d’ ‘e’ ‘f’ and the like 7.4 times as likely (controls at "
        "most 1.6 times, noise with tokens of its own 2)" in text
    )
    assert [shown for shown, _ in said[1]] == [False]
    assert "no longer text" in said[1][0][1]
    assert "not shown to steer" in said[5][0][1]
    assert "output score" not in said[5][0][1]
    (told,) = steered._record(known[3] | {"steer_moves": False}).said()
    assert told.text.endswith(
        "of its own 2). Its output score, or the lower end of that figure, does not exceed what is asked."
    )
    assert said[0] == []


def test_a_table_by_the_logit_lens_is_read_and_says_no_tokens(wb, kept):
    table = steered.read_steering(kept)
    write_part(table.drop_columns(list(steered.LATER)), kept)
    again = steered.read_steering(kept)
    assert again.column_names == table.column_names
    assert again["targets"].null_count == len(again)
    known = {row["feature"]: row for row in joined(wb, kept).to_pylist()}
    (said,) = steered._record(known[3]).said()
    assert "held at 8 it makes its tokens 7.4 times as likely (controls at most 1.6 times), and" in said.text
    write_part(table.drop_columns(["shift"]), kept)
    with pytest.raises(InterpError, match="has no column shift"):
        steered.read_steering(kept)


def joined(wb, path):
    of = Of(name="sae", model="tiny", sae_sha256=wb.card.sae_sha256, d_sae=wb.sae.d_sae)
    return join(of, {"steering": steered.read_steering(path)})


def test_the_report_has_the_share_of_controllers(wb, kept):
    table = joined(wb, kept)
    assert "Of 3 features that were drawn and steered 33.3%" in steered.PART.summary(table)
    write_evidence(table, kept.parent / FILE)
    section = evidence_section(wb)
    assert section["controllers"].value == pytest.approx(1 / 3)
    assert section["moves"].value == pytest.approx(2 / 3)
    assert section["moves"].n == 3
