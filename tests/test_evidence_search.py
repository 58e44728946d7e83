"""Searches that ask what was tested, and the faces that show it, on an SAE whose evidence is known."""

import json

import numpy as np
import pyarrow as pa
import pytest

from interp.commands import COMMANDS, as_json
from interp.evidence import labels, make_part, replication
from interp.evidence.card import FILE, Of, evidence_folder, join, write_evidence
from interp.evidence.table import COLUMNS as EFFECTS
from interp.search import KEYS, parse
from interp.types import InterpError
from interp.views import feature_page
from interp.workbench import Workbench
from tests.conftest import ROOT
from tests.test_cli import call
from tests.test_ui import run as page_of
from tests.test_ui import sheet

VERDICTS = ["confirmed", "refuted", "undecided", "too few", "no claim", "never fires"]
LANGUAGES = ["English", "French", "Spanish"]


def scope(feature: int) -> list[dict] | None:
    """English holds for each confirmed one, French for every other of these."""
    if feature % 6:
        return None
    held = {"English": "holds", "French": "holds" if feature % 12 == 0 else "does not", "Spanish": "too little text"}
    parts = [
        {"part": "language", "value": value, "verdict": held[value], "fires": 20, "documents": 9} for value in LANGUAGES
    ]
    return [part | {"precision": 0.75, "low": 0.5, "high": 0.9} for part in parts]


def known(sae_sha256: str) -> dict[str, pa.Table]:
    """Of 64 features: verdicts in turn; KL f / 1024 nats of the even ones, beyond controls from feature 32 on."""
    count, about = 64, {"sae_sha256": sae_sha256, "tried": "on a text"}
    verdict = [VERDICTS[f % 6] for f in range(count)]
    rows = {name: [None] * count for name in labels.COLUMNS}
    rows |= {"feature": range(count), "verdict": verdict, "scope": [scope(f) for f in range(count)]}
    rows |= {"name": [f"<b>name</b> {f}" if f % 6 < 4 else None for f in range(count)]}
    rows |= {"claim": ["token:/^ river$/" if f % 6 < 4 else None for f in range(count)]}
    rows |= {"f1": [0.8] * count, "f1_low": [0.7] * count, "f1_high": [0.9] * count, "q": [0.01] * count}
    table = make_part("labels", labels.FORMAT, labels.COLUMNS, rows, about)
    even = [f % 2 == 0 for f in range(count)]
    kl = [f / 1024 if f % 2 == 0 else None for f in range(count)]
    own = {name: [None] * count for name in EFFECTS} | {
        "feature": range(count),
        "kl": kl,
        "positions": [16 * one for one in even],
    }
    own |= {
        "q": [0.01] * count,
        "control_kl": [0.0001] * count,
        "exceeds": [f % 2 == 0 and f >= 32 for f in range(count)],
    }
    meta = {b"interp.effects": json.dumps({"format": 1, "sae_sha256": sae_sha256}).encode()}
    arrays = [pa.array(list(own[name]), kind) for name, (kind, _) in EFFECTS.items()]
    return {"labels": table, "effects": pa.table(arrays, names=list(EFFECTS)).replace_schema_metadata(meta)}


@pytest.fixture
def bare(checkpoint, tmp_path, monkeypatch) -> Workbench:
    """The checkpoint in a home without evidence."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    monkeypatch.setenv("INTERP_LABELS", f"sqlite:///{tmp_path}/labels.sqlite")
    return Workbench.open(checkpoint)


@pytest.fixture
def bench(bare) -> Workbench:
    """With the evidence above."""
    write(bare, known(bare.card.sae_sha256))
    return bare


def write(wb: Workbench, parts: dict[str, pa.Table]) -> None:
    of = Of(name=wb.card.name, model=wb.card.model, sae_sha256=wb.card.sae_sha256, d_sae=64)
    write_evidence(join(of, parts), evidence_folder(wb.card.sae_sha256) / FILE)


def found(wb: Workbench, query: str) -> list[int]:
    return [hit.feature for hit in wb.search(query, limit=64)]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("confirmed:yes", lambda f: f % 6 == 0),
        ("confirmed:no", lambda f: f % 6),
        ("verdict:Refuted", lambda f: f % 6 == 1),
        ('verdict:"too few"', lambda f: f % 6 == 3),
        ("verdict:too-few", lambda f: f % 6 == 3),
        ("scope:en", lambda f: f % 6 == 0),
        ("scope:fr", lambda f: f % 12 == 0),
        ("scope:French not scope:es", lambda f: f % 12 == 0),
        ("effect:0.01..0.02", lambda f: f % 2 == 0 and 0.01 <= f / 1024 <= 0.02),
        ("effect:>0.05", lambda f: f % 2 == 0 and f / 1024 >= 0.05),
        ("effect:0.05", lambda f: f % 2 == 0 and f / 1024 >= 0.05),
        ("effect:<0.005", lambda f: f % 2 == 0 and f / 1024 <= 0.005),
        ("exceeds:yes", lambda f: f % 2 == 0 and f >= 32),
        ("exceeds:no", lambda f: f % 2 or f < 32),
        ("confirmed:yes exceeds:yes", lambda f: f % 6 == 0 and f >= 32),
    ],
)
def test_a_key_finds_what_the_table_says(bench, query, wanted):
    assert sorted(found(bench, query)) == [f for f in range(64) if wanted(f)]


def test_effects_are_an_order_and_a_score(bench):
    measured = list(range(62, -1, -2))
    assert found(bench, "sort:effect")[:32] == measured
    assert found(bench, "effect:0..") == measured
    assert found(bench, "effect:0.. sort:feature") == measured[::-1]
    hit = bench.search("effect:0.06")[0]
    assert hit.scores["effect"] == 62 / 1024
    assert hit.why["effect"] == "KL 0.0605 nats, controls 0.0001: beyond its controls"


def test_a_hit_says_what_was_tried(bench):
    hit = bench.search("confirmed:yes scope:fr", limit=1)[0]
    assert hit.why["confirmed"] == "<b>name</b> 0: confirmed, F1 0.80 (from 0.70)"
    assert hit.why["scope"] == "language French: holds (n 20), precision 0.75"
    assert (
        bench.search("confirmed:yes not scope:fr")[0].why["not scope:fr"].startswith("language French: does not (n 20)")
    )


def test_features_found_again_in_other_trainings(bench):
    """Feature f is found in f % 3 of two, and one in four fires too seldom to be judged."""
    rows = {name: [None] * 64 for name in replication.COLUMNS} | {"feature": range(64), "of": [2] * 64}
    rows |= {"found": [None if f % 4 == 3 else f % 3 for f in range(64)]}
    about = {"sae_sha256": bench.card.sae_sha256}
    again = make_part("replication", replication.FORMAT, replication.COLUMNS, rows, about)
    with pytest.raises(InterpError, match="does not say whether other trainings find features again"):
        bench.search("replicates:2")
    write(bench, known(bench.card.sae_sha256) | {"replication": again})
    judged = [f for f in range(64) if f % 4 != 3]
    assert sorted(found(bench, "replicates:2")) == [f for f in judged if f % 3 == 2]
    assert sorted(found(bench, "replicates:1..1")) == [f for f in judged if f % 3 == 1]
    assert sorted(found(bench, "replicates:0..0")) == [f for f in judged if f % 3 == 0]
    assert sorted(found(bench, "replicates:1 confirmed:yes")) == [f for f in judged if f % 3 and f % 6 == 0]
    assert sorted(found(bench, "replicates:0 confirmed:yes")) == [f for f in judged if f % 6 == 0]
    assert bench.search("replicates:2")[0].why["replicates"] == "found again in 2 of 2 other trainings"


@pytest.mark.parametrize(
    "query",
    ["confirmed:yes", "verdict:refuted", "scope:en", "effect:0.1", "exceeds:yes", "replicates:2", "sort:effect"],
)
def test_without_evidence_the_command_is_named(bare, query):
    with pytest.raises(InterpError, match="there is no evidence of .*; `interp evidence .*` makes it"):
        bare.search(query)


def test_a_part_that_was_not_made_is_named(bare):
    parts = known(bare.card.sae_sha256)
    write(bare, {"labels": parts["labels"]})
    for query in ("effect:0.1", "exceeds:no", "sort:effect"):
        with pytest.raises(
            InterpError, match="does not say what features cause .*`interp evidence SAE --parts effects`"
        ):
            bare.search(query)
    write(bare, {"effects": parts["effects"]})
    for query in ("confirmed:yes", "scope:en", "verdict:refuted"):
        with pytest.raises(
            InterpError, match="does not say what features are called.*`interp evidence SAE --parts labels`"
        ):
            bare.search(query)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("confirmed:maybe", "confirmed:maybe is neither yes nor no"),
        ("verdict:conformed", "no verdict 'conformed': did you mean confirmed"),
        ("scope:klingon", "no part of the tested text 'klingon': there is English, French, Spanish"),
        ("effect:much", "effect:much is no range .at character 1.; write effect:1e-5..1e-2"),
        ("effect:2..1", "effect:2..1 is empty"),
    ],
)
def test_what_there_is_not_is_answered_in_a_sentence(bench, query, said):
    with pytest.raises(InterpError, match=said):
        bench.search(query)


def test_neurons_have_no_evidence(bench):
    from interp.labels import LabelBook
    from interp.search import Collection, search

    bare = Collection(bench.index, LabelBook("", 64, url="sqlite://"))
    with pytest.raises(InterpError, match="confirmed: asks for evidence, which there is of an SAE's features only"):
        search("confirmed:yes", bare)


def test_every_key_is_written_and_read_back():
    for query in ("confirmed:yes", "scope:en effect:0.01.. sort:effect", "replicates:2 verdict:refuted"):
        assert str(parse(query)) == query
    assert {"confirmed", "verdict", "scope", "effect", "exceeds", "replicates"} <= set(KEYS)


# ---- shown ----


def test_a_page_has_the_card_or_says_why_not(bench, bare):
    page = bench.feature(6)
    assert page.evidence.label.verdict == "confirmed"
    assert page.tested() == page.evidence.said
    html = page._repr_html_()
    assert "name&lt;/b&gt; 6" in html
    assert "<b>name" not in html
    bench.labels.set(6, "my own", author="me")
    first = bench.feature(6).tested()[0]
    assert first.text.startswith("The label that stands here was not tried; what was tried is <b>name</b> 6 — ")
    assert not first.shown
    bench.labels.set(6, "again", author="autolabel", predicate="at:(token:/^ river$/)")
    assert bench.feature(6).tested() == page.evidence.said
    (evidence_folder(bench.card.sae_sha256) / FILE).unlink()
    lacking = bench.feature(6)
    assert lacking.evidence is None
    assert lacking.tested()[0].text.startswith("There is no evidence of ")
    assert feature_page(bench.index, 6, None).tested() == []


def test_a_damaged_file_takes_the_card_and_not_the_page(bench):
    path = evidence_folder(bench.card.sae_sha256) / FILE
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read as a table" in bench.feature(6).tested()[0].text
    assert bench.search("token:/a/") is not None


def test_the_command_line_shows_it(bench, checkpoint, monkeypatch, capsys):
    code, shown, _ = call(monkeypatch, capsys, "feature", checkpoint, 6)
    assert code == 0
    assert "not shown: " in shown
    assert shown.index("not shown: ") < shown.index("shown: The label <b>name</b> 6")
    page = as_json(COMMANDS["feature"].call(str(checkpoint), 6))["page"]
    assert page["evidence"]["label_verdict"] == "confirmed"
    assert page["evidence"]["sentences"] == bench.feature(6).evidence.sentences()
    assert np.isclose(page["evidence"]["effect_kl"], 6 / 1024)


def test_the_page_in_a_browser_shows_it_as_text(bench, checkpoint, monkeypatch):
    monkeypatch.chdir(ROOT)
    app = page_of("feature", sae=str(checkpoint), feature="6")
    said = sheet(app)
    assert said.index("What speaks against it") < said.index("Where it fires")
    assert "&lt;b&gt;name" in said
    assert "<b>name" not in said
