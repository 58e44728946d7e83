"""Evidence of all features: parts joined into one file, the card of a feature, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.commands import as_json
from interp.evidence import caused, labels, make_part, read_evidence, write_part
from interp.evidence.card import FILE, PARTS, Of, evidence_folder, join, read_made, write_evidence
from interp.evidence.table import COLUMNS as EFFECTS
from interp.labels.automatic import Run, scoped
from interp.types import InterpError
from tests.named_world import FEATURES, World

SHA = "a" * 64
OF = Of(name="world", model="tiny", sae_sha256=SHA, d_sae=FEATURES + 2)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def tested(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    found = world.tried(folder)
    return found, scoped(Run(folder), world.proposer(), found)


@pytest.fixture(scope="module")
def named(world, tested) -> pa.Table:
    """The labels of the world, whose features are 0 to 59; 60 fires and has no claim, 61 is silent."""
    fires = np.array([*world.fires_F, 5, 0])
    return labels.make_labels(FEATURES + 2, fires, *tested, {"sae_sha256": SHA, "tried": "on a world"})


def effects(**columns) -> pa.Table:
    """A table of effects as `measure_effects` writes it, of two features: one told from its controls, one never tried."""
    row = {name: [None, None] for name in EFFECTS} | {"feature": [1, 2], "positions": [16, 0], "documents": [14, 0]}
    row |= {"kl": [0.031, None], "kl_low": [0.02, None], "kl_high": [0.04, None], "control_kl": [0.001, None]}
    row |= {"q": [0.01, 1.0], "exceeds": [True, False], "rate": [0.1, None], "null_95": [0.05, None]}
    row |= columns
    meta = {b"interp.effects": json.dumps({"format": 1, "sae_sha256": SHA, "model": "tiny"}).encode()}
    fields = [pa.field(name, kind, metadata={"about": words}) for name, (kind, words) in EFFECTS.items()]
    return pa.table(
        [pa.array(row[name], kind) for name, (kind, _) in EFFECTS.items()], schema=pa.schema(fields, metadata=meta)
    )


@pytest.fixture
def written(named, tmp_path):
    """Both parts joined, and read again from their file."""
    path = tmp_path / FILE
    write_evidence(join(OF, {"labels": named, "effects": effects()}), path)
    return read_evidence(path, OF)


# ---- the table ----


def test_every_column_says_what_it_is_in_which_unit_and_of_which_part(written):
    documented = written.documented()
    assert len(documented) == 1 + sum(len(part.own) for part in PARTS if part.name in ("labels", "effects"))
    for name, part, about in documented:
        assert about, name
        assert part or name == "feature"
    units = {about.partition(":")[0] for name, _, about in documented if name.startswith("effect_")}
    assert {"nats", "count", "probability", "units of the SAE"} <= units
    assert {field.type for field in written.table.schema if pa.types.is_floating(field.type)} == {pa.float32()}


def test_the_joined_figures_are_those_of_the_parts(written, named):
    for name in ("f1", "precision", "q", "level"):
        want = named[name].to_numpy()
        assert np.allclose(written.column(f"label_{name}"), want, rtol=2**-12, atol=0, equal_nan=True), name
    assert written.table["label_verdict"].to_pylist() == named["verdict"].to_pylist()
    assert written.table["label_scope"].to_pylist() == named["scope"].to_pylist()
    for got, want in zip(written.table["label_bands"].to_pylist(), named["bands"].to_pylist(), strict=True):
        assert (got is None) == (want is None)
        assert np.allclose(np.array(got or [], float), np.array(want or [], float), rtol=2**-12, equal_nan=True)
    kl = written.column("effect_kl")
    assert kl[1] == pytest.approx(0.031, rel=2**-12)
    assert np.isnan(np.delete(kl, 1)).all()
    assert written.parts["labels"]["tried"] == "on a world"


def test_a_full_table_of_9216_features_is_small(named, tmp_path):
    """Figures that no two features share, scopes of 35 parts for half of them."""
    draw, count = np.random.default_rng(0), 9216
    row = {name: draw.random(count) for name, (kind, _) in labels.COLUMNS.items() if kind == pa.float32()}
    one = [
        {"part": "source", "value": f"a source {i}", "verdict": "holds", "fires": 9 * i, "documents": i}
        for i in range(35)
    ]
    scope = [
        [s | {"precision": round(draw.random(), 3), "low": round(draw.random(), 3)} for s in one] if f % 2 else None
        for f in range(count)
    ]
    text = {
        "name": [f"‘word {f}’, ‘other’" for f in range(count)],
        "claim": [f"token:/^ (word|{f})$/" for f in range(count)],
    }
    row |= {"feature": range(count), "scope": scope, **text}
    row |= {name: [draw.random(5).tolist() for _ in range(count)] for name in ("bands", "bands_low", "bands_high")}
    table = make_part(
        "labels",
        1,
        labels.COLUMNS,
        {name: row.get(name, [None] * count) for name in labels.COLUMNS},
        {"sae_sha256": SHA},
    )
    real = {name: draw.random(count) for name, (kind, _) in EFFECTS.items() if kind == pa.float32()}
    other = {name: draw.integers(0, 17, count) for name, (kind, _) in EFFECTS.items() if kind == pa.uint32()}
    caused_ = effects().schema.empty_table()
    arrays = [pa.array((real | other | {"feature": np.arange(count), "exceeds": draw.random(count) < 0.5})[name], kind, from_pandas=True)
              if pa.types.is_boolean(kind) or kind == pa.uint32() else pa.array(real[name]).cast(kind, safe=False)
              for name, (kind, _) in EFFECTS.items()]  # fmt: skip
    path = tmp_path / FILE
    write_evidence(
        join(replace(OF, d_sae=count), {"labels": table, "effects": pa.table(arrays, schema=caused_.schema)}), path
    )
    assert path.stat().st_size < 2.5 * 2**20, path.stat().st_size


# ---- the card of a feature ----


def test_a_confirmed_label_says_its_figures_and_where_it_holds(written, tested):
    feature = next(f for f, one in tested[0].items() if one.verdict == "confirmed" and f < 50)
    card = written[feature]
    assert card.label.verdict == "confirmed"
    assert card.label.f1 == pytest.approx(tested[0][feature].figures["f1"][0], rel=2**-12)
    said = card.sentence()
    assert f"The label {tested[0][feature].proposal.text} is confirmed: F1 " in said
    assert "The label holds in " in said
    assert "2 sources" in said
    record = json.loads(json.dumps(as_json(card)))
    assert record["label_verdict"] == "confirmed"
    assert record["sentences"] == card.sentences()


def test_what_could_not_be_shown_is_said_first_and_what_nobody_looked_at_next(written):
    card = written[2]
    shown = [each.shown for each in card.said]
    assert shown == sorted(shown)
    nothing = "What it causes could not be measured: it fires nowhere that it could be tried."
    lacking = next(iter(card.missing.values()))
    label = next(text for text in card.sentences() if text.startswith(f"The label {card.label.claimed} is "))
    assert card.sentences().index(nothing) < card.sentences().index(lacking) < card.sentences().index(label)
    assert any(
        text.startswith("Not looked at: whether confirmed labels hold on the final documents")
        for text in card.missing.values()
    )
    assert card._repr_html_().index("not shown") < card._repr_html_().index(f"The label {card.label.name[:1]}")
    assert written[60].label.verdict == "no claim"
    assert "No claim was found" in written[60].sentence()
    assert "It never fires" in written[61].sentence()
    with pytest.raises(InterpError, match="no feature 62 in world, which has features 0 to 61"):
        written[62]


def test_html_in_a_name_is_shown_as_text(named, tmp_path):
    bold = named.set_column(
        named.column_names.index("name"), named.schema.field("name"), pa.array(["<b>x</b>"] * len(named))
    )
    path = tmp_path / FILE
    write_evidence(join(OF, {"labels": bold}), path)
    html = read_evidence(path, OF)[3]._repr_html_()
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html


def test_what_it_comes_to_is_counted(written, named):
    verdicts = named["verdict"].to_pylist()
    said = written.sentence()
    assert f"Of 62 features {verdicts.count('confirmed')} have a label that is confirmed" in said
    assert "for 1 no claim was found, and 1 never fire" in said
    assert "With another feature's claim in its place, 0 of " in said
    assert "1 of 2 features (50.0%" in said


def none_known(features):
    values = {"feature": features, "null_random_model": [0.0] * len(features)}
    return make_part("random", 1, labels.RANDOM_COLUMNS, values, {"sae_sha256": SHA})


def test_a_further_table_is_joined_and_judges_again(named, written, tmp_path):
    """Under a null of a random model that lies above every F1 nothing is confirmed, and nothing refuted for it."""
    confirmed = named.filter(pa.compute.equal(named["verdict"], "confirmed"))["feature"].to_pylist()
    high = make_part(
        "random",
        1,
        labels.RANDOM_COLUMNS,
        {"feature": confirmed[:3], "null_random_model": [1.0, 1.0, 0.0]},
        {"sae_sha256": SHA},
    )
    columns = {name: [None] for name in labels.FINAL_COLUMNS} | {
        "feature": confirmed[3:4], "final_verdict": ["confirmed"], "final_holds": [True], "final_f1": [0.8]
    }  # fmt: skip
    final = make_part("final", 1, labels.FINAL_COLUMNS, columns, {"sae_sha256": SHA})
    table = join(OF, {"labels": named, "random": high, "final": final})
    path = tmp_path / FILE
    write_evidence(table, path)
    both = read_evidence(path, OF)
    assert [both[f].label.verdict for f in confirmed[:3]] == [labels.TOLD, labels.TOLD, "confirmed"]
    assert "but labels of a random-weight model's features reach 1." in both[confirmed[0]].sentences()[0]
    assert f" {2} one that is told from chance but no better" in both.sentence()
    back = join(OF, {"random": none_known(confirmed[:3])}, both)
    assert back["label_verdict"].to_pylist() == named["verdict"].to_pylist()
    assert "On the final documents it is confirmed (F1 0.8)." in both[confirmed[3]].sentences()
    assert "of 1 confirmed labels that could be tried 1 hold" in both.sentence()
    assert set(both.missing) == {part.name for part in PARTS} - {"labels", "random", "final"}


def test_what_was_not_made_here_is_taken_from_the_file_that_was_there(written, named):
    again = join(OF, {"effects": effects(kl=[0.5, None])}, written)
    assert again["label_f1"].equals(written.table["label_f1"])
    assert again["effect_kl"][1].as_py() == 0.5
    assert json.loads(again.schema.metadata[b"interp.evidence"])["parts"]["labels"] == written.parts["labels"]


def test_a_column_that_was_not_made_names_its_command(named, tmp_path):
    path = tmp_path / FILE
    write_evidence(join(OF, {"labels": named}), path)
    evidence = read_evidence(path, OF)
    with pytest.raises(
        InterpError, match=r"does not say what features cause .*`interp evidence SAE --parts effects` measures it"
    ):
        evidence.column("effect_kl")
    with pytest.raises(InterpError, match="no column of the evidence 'label_vredict': did you mean label_verdict"):
        evidence.column("label_vredict")


# ---- what is refused ----


def test_evidence_of_other_weights_or_cut_short_is_refused_in_a_sentence(written, tmp_path):
    path = tmp_path / FILE
    with pytest.raises(
        InterpError, match="is evidence of other weights .aaaaaaaaaaaa….* `interp evidence SAE` makes it anew"
    ):
        read_evidence(path, replace(OF, sae_sha256="b" * 64))
    with pytest.raises(InterpError, match="has no row for each of the 64 features"):
        read_evidence(path, replace(OF, d_sae=64))
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:size])
        with pytest.raises(InterpError, match="cannot be read as a table: it was cut short or changed"):
            read_evidence(path, OF)
    with pytest.raises(InterpError, match="there is no file"):
        read_evidence(tmp_path / "none", OF)
    pq.write_table(written.table.replace_schema_metadata(None), path)
    with pytest.raises(InterpError, match="does not say what it is of"):
        read_evidence(path, OF)
    about = json.dumps(dict(written.about) | {"format": 99}).encode()
    pq.write_table(written.table.replace_schema_metadata({b"interp.evidence": about}), path)
    with pytest.raises(InterpError, match="has format 99, and this version reads 1"):
        read_evidence(path, OF)
    other = written.table.set_column(
        written.table.column_names.index("label_f1"), "label_f1", pa.array(["x"] * len(written))
    )
    pq.write_table(other, path)
    with pytest.raises(InterpError, match="has no column label_f1 as this program writes it"):
        read_evidence(path, OF)


def test_a_part_of_other_weights_or_another_part_is_refused(named, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    folder = evidence_folder(SHA)
    folder.mkdir(parents=True)
    assert read_made(labels.PART, OF) is None
    write_part(named, folder / labels.PART.file)
    assert read_made(labels.PART, OF).num_rows == FEATURES + 2
    with pytest.raises(InterpError, match="has rows that are no features of world"):
        read_made(labels.PART, replace(OF, d_sae=9))
    (evidence_folder("b" * 64)).mkdir(parents=True)
    shutil.copy(folder / labels.PART.file, evidence_folder("b" * 64))
    with pytest.raises(InterpError, match="is of other weights than world"):
        read_made(labels.PART, replace(OF, sae_sha256="b" * 64))
    assert read_made(labels.PART, replace(OF, sae_sha256="b" * 64, same=frozenset([SHA]))) is not None
    shutil.copy(folder / labels.PART.file, folder / labels.FINAL.file)
    with pytest.raises(InterpError, match="holds the part labels in format 1, and the part final in format 1"):
        read_made(labels.FINAL, OF)
    assert caused.PART.file == "effects.parquet"
