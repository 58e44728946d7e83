"""Features found again in SAEs that were trained apart: in those of the same world, in no others; and what chance would find."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from interp.activations import harvest
from interp.checkpoint import load
from interp.corpus import open_corpus
from interp.evidence import labels, random_null
from interp.evidence.card import Of, evidence_folder, join
from interp.evidence.part import about_part, write_part
from interp.evidence.replication import (
    CHANCE,
    FEW,
    FILE,
    PART,
    RANDOM_MODEL,
    compare,
    find_matches,
    make_replication,
    null_by_chance,
    null_of,
    prepare,
    read_replication,
)
from interp.labels.automatic import Run, scoped
from interp.labels.matching import Side
from interp.labels.testing import Ground, Label, RandomNull, try_labels
from interp.models import open_model
from interp.predicates import read_claim
from interp.recipe import train_checkpoint
from interp.sae import BatchTopK
from interp.training import TrainConfig, train
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK
from tests.named_world import FEATURES, World
from tests.test_transfer import TEXT, permuted, write

torch.set_num_threads(1)
WIDTH, PLANTED, ROWS = 32, 24, 40_000
DOCUMENT_P = np.repeat(np.arange(ROWS // 20), 20)


def rows(world: int, count: int = ROWS, seed: int = 0) -> torch.Tensor:
    """Sums of few planted directions, which are another world's with another number."""
    draw = torch.Generator().manual_seed(1_000 + world)
    truth = torch.nn.functional.normalize(torch.randn(PLANTED, WIDTH, generator=draw), dim=1)
    draw.manual_seed(seed)
    code = (1 + torch.rand(count, PLANTED, generator=draw)) * (torch.rand(count, PLANTED, generator=draw) < 0.12)
    return code @ truth * 5 + 0.05 * torch.randn(count, WIDTH, generator=draw)


def trained(world: int, seed: int) -> Side:
    """An SAE of a world, begun with a seed, as it reads the rows of world 0."""
    x = rows(world, seed=seed)
    rule, config = BatchTopK(d_in=WIDTH, d_sae=PLANTED, k=3), TrainConfig(tokens=2 * ROWS, seed=seed)
    sae = train(list(x.split(500)) * 2, rule, config, held_out=x[:4_096]).cpu()
    return Side(sae.W_dec.float(), csr_matrix(sae.encode(rows(0)).numpy()))


@pytest.fixture(scope="module")
def worlds() -> dict[str, Side]:
    return {"own": trained(0, 1), "again": trained(0, 2), "another": trained(1, 3), "nothing": trained(2, 4)}


def table_of(own: Side, *others: Side, null: Side | None = None):
    first, prepared = prepare(own), [prepare(side) for side in others]
    found = [compare(first, other, DOCUMENT_P) for other in prepared]
    nothing = null_by_chance(first, prepared[0]) if null is None else null_of(first, prepare(null))
    return make_replication(first.fires, found, nothing, {"sae_sha256": "a" * 64})


@pytest.mark.parametrize("null", ["nothing", ""])
def test_two_seeds_of_one_world_find_the_same_features_and_another_world_does_not(worlds, null):
    nothing = worlds[null] if null else None
    again, another = (table_of(worlds["own"], worlds[name], null=nothing) for name in ("again", "another"))
    alike = np.array([row[0] > 0.9 for row in again["cosine"].to_pylist()])
    assert alike.sum() >= 0.7 * PLANTED  # the two have learned the world
    found = np.array(again["found"].to_pylist())
    assert found[alike].tolist() == [1] * alike.sum()
    assert sum(another["found"].to_pylist()) <= 2
    assert np.array(again["q"].to_pylist())[alike].max() <= 0.1
    would = again["null_found"].to_pylist()
    assert would == [None] * PLANTED if nothing is None else sum(would) <= 1
    both = table_of(worlds["own"], worlds["again"], worlds["another"], null=nothing)
    assert set(both["of"].to_pylist()) == {2}
    summed = [a + b for a, b in zip(again["found"].to_pylist(), another["found"].to_pylist(), strict=True)]
    assert np.abs(np.array(both["found"].to_pylist()) - summed).sum() <= 2  # q is over both others there


def test_matches_are_those_of_all_pairs_looked_at_one_by_one(worlds):
    own, other = prepare(worlds["own"]), prepare(worlds["another"])
    found = find_matches(own, other)
    x, y = worlds["own"].active.toarray(), worlds["another"].active.toarray()
    r = np.nan_to_num(np.corrcoef(x.T.astype(np.float64), y.T.astype(np.float64))[:PLANTED, PLANTED:])
    unit = [torch.nn.functional.normalize(worlds[name].W_dec, dim=1) for name in ("own", "another")]
    cosine = (unit[0] @ unit[1].T).numpy()
    everyone = np.arange(PLANTED)
    assert found.match_F.tolist() == cosine.argmax(1).tolist()
    assert np.allclose(found.correlation_F, r[everyone, found.match_F], atol=1e-5)
    assert np.allclose(found.largest_F, np.minimum(cosine, r).max(1), atol=1e-5)
    assert found.agrees_F.tolist() == (r.argmax(1) == found.match_F).tolist()
    back = (cosine.argmax(0)[found.match_F] == everyone) & (r.argmax(0)[found.match_F] == everyone)
    assert found.mutual_F.tolist() == back.tolist()


def test_intervals_of_correlations_are_as_wide_as_a_bootstrap_over_documents_says():
    draw = np.random.default_rng(0)
    per, documents = 20, 400
    level = np.repeat(draw.exponential(1, documents), per)[:, None]  # documents differ, so that blocks matter
    x = draw.random((documents * per, 3)) * (draw.random((documents * per, 3)) < 0.3) * level
    y = np.where(draw.random(x.shape) < 0.7, x, draw.random(x.shape) * level * (draw.random(x.shape) < 0.3))
    rows_3D = torch.eye(3)
    own, other = prepare(Side(rows_3D, csr_matrix(x))), prepare(Side(rows_3D, csr_matrix(y)))
    found = compare(own, other, np.repeat(np.arange(documents), per))
    for feature in range(3):
        drawn = []
        for _ in range(400):
            of = (draw.integers(0, documents, documents)[:, None] * per + np.arange(per)).ravel()
            drawn.append(np.corrcoef(x[of, feature], y[of, feature])[0, 1])
        low, high = np.percentile(drawn, (2.5, 97.5))
        assert found.low_F[feature] < found.matches.correlation_F[feature] < found.high_F[feature]
        assert found.high_F[feature] - found.low_F[feature] == pytest.approx(high - low, rel=0.3)


def test_a_feature_that_fires_too_seldom_is_not_judged(worlds):
    seldom = worlds["own"].active.tolil()
    seldom[:, 0] = 0
    seldom[: FEW - 1, 0] = 1.0
    table = table_of(Side(worlds["own"].W_dec, csr_matrix(seldom)), worlds["again"])
    row = table.slice(0, 1).to_pylist()[0]
    assert (row["fires"], row["found"], row["null_99"], row["null_found"]) == (FEW - 1, None, None, None)
    assert row["p"] == row["q"] == [None]
    told = PART.record({f"again_{name}": value for name, value in row.items()}).said()
    assert not told[0].shown
    assert "could not be judged: it fires at 9 positions" in told[0].text


# ---- of real indexes ----


@pytest.fixture(scope="module")
def random_sae(tiny_folder, text_folder, tmp_path_factory):
    """An SAE of a random-weight copy of the tiny model, with a full index of the same text."""
    folder = tmp_path_factory.mktemp("random")
    model = open_model(str(tiny_folder), dtype="float32", random=1)
    store = harvest(model, open_corpus(text_folder), [HOOK], TEXT, folder / "store")
    train_checkpoint(store, HOOK, folder / "sae", d_sae=64, k=4, epochs=4, batch=256, config=TrainConfig(lr=5e-3))
    Workbench.open(folder / "sae", labels="sqlite://").build_index(open_corpus(text_folder), TEXT, beside=True)
    return folder / "sae"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))


def test_a_permuted_copy_is_found_again_whole_and_each_feature_where_it_went(
    home, wb, checkpoint, text_folder, random_sae, tmp_path
):
    made, went = permuted(load(checkpoint), noise=0.0)
    other = write(made, tmp_path / "permuted", checkpoint, text_folder)
    table = wb.replication([other], random_sae)
    fires = table["fires"].to_numpy()
    assert (fires >= FEW).sum() > 30
    told = np.array([-1 if found is None else found for found in table["found"].to_pylist()])
    judged = fires >= FEW
    # Copies of a feature within the SAE, which are nobody's only match, may not be mutual.
    assert (told[judged] == 1).mean() > 0.9
    match = np.array([row[0] for row in table["match"].to_pylist()])
    assert match[told == 1].tolist() == went[told == 1].tolist()
    about = about_part(table)
    assert about["null"]["kind"] == RANDOM_MODEL
    assert about["null"]["model"].startswith("random-1:")
    assert about["others"][0]["sae_sha256"] == Workbench.open(other).card.sae_sha256
    assert about["positions"] > 7_000
    path = evidence_folder(wb.card.sae_sha256) / FILE
    before = path.stat().st_mtime_ns
    assert wb.replication([other], random_sae).equals(table)
    assert path.stat().st_mtime_ns == before
    assert about_part(wb.replication([other]))["null"] == {"kind": CHANCE}
    assert path.stat().st_mtime_ns != before
    wb.build_evidence(["labels"])
    assert "are found again" in wb.evidence.sentence()
    assert wb.evidence.column("again_found").tolist() == pytest.approx(
        [np.nan if found is None else found for found in read_replication(path)["found"].to_pylist()], nan_ok=True
    )


def test_what_cannot_be_compared_is_refused_in_a_sentence(home, wb, checkpoint, text_folder, random_sae, tmp_path):
    with pytest.raises(InterpError, match="name at least one other SAE"):
        wb.replication([])
    with pytest.raises(InterpError, match="is given twice"):
        wb.replication([checkpoint])
    with pytest.raises(InterpError, match="labels are carried between|was made for"):
        wb.replication([random_sae])
    made, _ = permuted(load(checkpoint))
    other = write(made, tmp_path / "permuted", checkpoint, text_folder)
    with pytest.raises(InterpError, match="not for a random-weight copy of"):
        wb.replication([other], write(permuted(load(checkpoint), seed=2)[0], tmp_path / "third", checkpoint))
    elsewhere = write(made, tmp_path / "elsewhere", checkpoint, None, hook_name="blocks.0.hook_resid_post")
    with pytest.raises(InterpError, match="features are looked for in SAEs of one hook point"):
        wb.replication([elsewhere])
    lines = (text_folder / "docs.jsonl").read_text().splitlines()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "docs.jsonl").write_text("\n".join(lines[7:]), encoding="utf-8")
    moved = write(permuted(load(checkpoint), seed=3)[0], tmp_path / "moved", checkpoint, tmp_path / "other")
    with pytest.raises(InterpError, match="are of different texts"):
        wb.replication([moved])


# ---- labels of a random model ----


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def tested(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    found = world.tried(folder)
    return found, scoped(Run(folder), world.proposer(), found)


def high_null(f1: float) -> RandomNull:
    return RandomNull(np.linspace(0.001, 0.1, 50), np.full(50, f1))


def test_a_confirmed_label_lies_above_what_labels_of_the_random_model_reach(world, tested):
    some = [one.proposal for one in tested[0].values()]
    claims = [Label(feature=one.feature, claim=read_claim(one.claim), level=one.level) for one in some]
    ground = Ground(world.text)
    plain = try_labels(claims, ground, world.fires.__getitem__)
    low, high = (try_labels(claims, ground, world.fires.__getitem__, random_null=high_null(f1)) for f1 in (0.1, 1.0))
    confirmed = [[row["verdict"] == "confirmed" for row in rows] for rows in (plain, low, high)]
    assert sum(confirmed[0]) > 30
    assert confirmed[0] == confirmed[1]
    assert sum(confirmed[2]) == 0
    assert all("null_random_model" not in row for row in plain)
    assert {row["null_random_model"] for row in high} == {1.0}
    assert [row["p"] for row in plain] == [row["p"] for row in high]


def test_the_null_is_of_labels_whose_features_fire_about_as_often():
    rows = [{"fires": 10 + n, "documents": 9, "f1": (0.1 if n < 300 else 0.6, 0, 1)} for n in range(600)]
    null = RandomNull.of(rows, 10_000)
    assert null.percentile(0.0012) == pytest.approx(0.1)
    assert null.percentile(0.055) == pytest.approx(0.6)
    seldom = [row | {"documents": 2} for row in rows]
    with pytest.raises(InterpError, match="0 labels of the random-weight model's SAE can be judged"):
        RandomNull.of(seldom, 10_000)


def test_the_part_of_the_random_model_takes_verdicts_back_where_the_evidence_is_joined(world, tested, tmp_path):
    sha = "a" * 64
    fires = np.array([*world.fires_F, 5, 0])
    named = labels.make_labels(FEATURES + 2, fires, *tested, {"sae_sha256": sha, "tried": "on a world"})
    of = Of(name="world", model="tiny", sae_sha256=sha, d_sae=FEATURES + 2)
    table = random_null.make_null_table(high_null(1.0), {"sae_sha256": sha})
    write_part(table, tmp_path / random_null.FILE)
    null = random_null.read_null(tmp_path / random_null.FILE)
    assert null.percentile(0.05) == pytest.approx(1.0)
    positions = len(Ground(world.text).position_P)
    part = random_null.make_random(named, null, positions, {"sae_sha256": sha})
    before, after = (join(of, {"labels": named, **more}) for more in ({}, {"random": part}))
    count = [table["label_verdict"].to_pylist().count("confirmed") for table in (before, after)]
    assert count[0] > 30
    assert count[1] == 0
    claimed = np.array(named["claim"].is_valid())
    assert np.array_equal(np.array(after["label_null_random_model"].is_valid()), claimed)


def test_the_random_models_labels_are_tried_and_kept_beside_the_evidence(home, wb, random_sae, monkeypatch):
    monkeypatch.setattr("interp.labels.testing.LEAST_NULL", 1)
    with pytest.raises(InterpError, match=r"there is no file .*labels\.parquet"):
        wb.random_null(random_sae)
    wb.build_evidence(["labels"])
    assert any("a model of random weights" in text for text in wb.evidence.sentences())
    null = wb.random_null(random_sae)
    folder = evidence_folder(wb.card.sae_sha256)
    kept = random_null.read_null(folder / random_null.FILE)
    assert np.allclose(kept.f1_N, null.f1_N)
    wb.build_evidence(["labels"])
    column = wb.evidence.column("label_null_random_model")
    claimed = np.array([bool(claim) for claim in wb.evidence.column("label_claim")])
    assert np.isfinite(column[claimed]).all()
    assert not np.isfinite(column[~claimed]).any()
    assert not Workbench.open(random_sae).labels.all()
