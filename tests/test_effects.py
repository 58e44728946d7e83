"""Effects of features that are known, and every figure against whole passes over the text."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from interp.evidence import (
    COLUMNS,
    Chosen,
    EffectsConfig,
    Passages,
    about_effects,
    choose_positions,
    measure_effects,
    read_effects,
    summarise,
)
from interp.evidence import effects as measuring
from interp.evidence.effects import FILE, kl_and_loss
from interp.evidence.positions import ABOVE, BELOW, NO_LEVEL, usable
from interp.evidence.table import make_table
from interp.models import Edit, open_model
from interp.sae import SAE
from interp.types import InterpError
from tests.families import WIDTH, save, sentences
from tests.test_two_at_once import held

torch.set_num_threads(1)

LAST, MIDDLE = "blocks.2.hook_resid_post", "blocks.1.hook_mlp_out"
BLOCK, DOCUMENTS, FEATURES = 40, 24, 40
NOTHING, MUCH = 0, 1
"""The feature whose row LayerNorm takes away, and that whose row moves the logits most."""


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Its norms take the mean off, so that a row of ones does nothing at all."""
    return open_model(str(save("gpt2", tmp_path_factory.mktemp("models") / "gpt2")), dtype="float32")


@pytest.fixture(scope="module")
def text(gpt2):
    """A document a block."""
    rows = [gpt2.prompt(" ".join(sentences(3, seed=number)))[:BLOCK] for number in range(DOCUMENTS)]
    assert {len(row) for row in rows} == {BLOCK}
    testing = np.arange(DOCUMENTS) % 2 == 0
    density = np.linspace(0.05, 0.2, FEATURES)
    return Passages(np.concatenate(rows), np.repeat(np.arange(DOCUMENTS), BLOCK), testing, BLOCK, density)


def planted(model, hook, *, reads=None):
    draw = torch.Generator().manual_seed(3)
    rows = torch.randn(FEATURES, WIDTH, generator=draw)
    unembed_VD, gain_D = model.unembedding()
    out = unembed_VD * gain_D
    rows[NOTHING] = 1.0
    rows[MUCH] = torch.linalg.svd(out - out.mean(0)).Vh[0]
    return SAE(
        W_enc=torch.randn(WIDTH, FEATURES, generator=draw), b_enc=torch.zeros(FEATURES), W_dec=rows,
        b_dec=torch.zeros(WIDTH), threshold=torch.full((FEATURES,), 0.5), reads=reads or hook, writes=hook,
        centred=reads is None, name="planted",
    )  # fmt: skip


def activations(model, sae, text):
    """Of every feature at every position, shape (N, F)."""
    tokens = torch.tensor(text.token_N.reshape(-1, text.block))
    x = model.run(tokens, [sae.reads[0].name]).activations[sae.reads[0].name]
    return sae.encode(x.float().reshape(-1, x.shape[-1])).numpy()


def choose(model, sae, text, count=16):
    """One position of each of so many documents, where each feature fires; every other one "above"."""
    z_NF = activations(model, sae, text)
    inside = np.arange(len(z_NF)) % text.block
    usable_N = (inside > 0) & (inside < text.block - 1)
    feature, position = [], []
    for f in range(sae.d_sae):
        fires = np.flatnonzero((z_NF[:, f] > 0) & usable_N)
        _, first = np.unique(fires // text.block, return_index=True)
        position += fires[first][:count].tolist()
        feature += [f] * len(fires[first][:count])
    side = np.where(np.arange(len(position)) % 2 == 0, ABOVE, BELOW).astype(np.int8)
    return Chosen(np.arange(sae.d_sae), np.array(feature), np.array(position), side)


def slowly(model, sae, text, feature, control, position):
    """(KL, loss, the control's KL and loss) of one position, by three passes over the whole block."""
    start = position // text.block * text.block
    tokens = torch.tensor(text.token_N[start : start + text.block])[None]
    at, follow = position - start, int(text.token_N[position + 1])
    hook, read = sae.writes[0].name, sae.reads[0].name
    x_D = model.run(tokens, [read]).activations[read][0, at].float()
    amount = sae.encode(x_D[None])[0, feature] * sae.W_dec[feature].norm()

    def log_p(change_D):
        def take_off(x_BTD, _):
            x_BTD = x_BTD.clone()
            x_BTD[0, at] -= change_D
            return x_BTD

        return model.run(tokens, edits=[Edit(hook, take_off)], logits=True).logits[0, at].double().log_softmax(-1)

    def unit(f):
        return sae.W_dec[f] / sae.W_dec[f].norm()

    before, own, other = (log_p(c) for c in (torch.zeros(WIDTH), amount * unit(feature), amount * unit(control)))
    kls = [float((before.exp() * (before - after)).sum()) for after in (own, other)]
    losses = [float(before[follow] - after[follow]) for after in (own, other)]
    return kls[0], losses[0], kls[1], losses[1], float(amount)


@pytest.mark.parametrize(("hook", "reads", "whole"), [
    (LAST, None, False), (MIDDLE, None, False), (MIDDLE, None, True), (MIDDLE, "blocks.1.hook_resid_mid", False),
])  # fmt: skip
def test_every_figure_is_that_of_whole_passes_over_the_text(gpt2, text, tmp_path, monkeypatch, hook, reads, whole):
    sae = planted(gpt2, hook, reads=reads)
    chosen = choose(gpt2, sae, text, count=2)
    seen = {}
    make = measuring.make_table
    monkeypatch.setattr(measuring, "make_table", lambda rows, *more: seen.update(rows) or make(rows, *more))
    config = EffectsConfig(at_once=5, part_blocks=7, whole_passes=whole)
    table = measure_effects(gpt2, sae, text, chosen, tmp_path, config).to_pandas()
    about = about_effects(read_effects(tmp_path / FILE))
    assert about["cached"] is not whole, about["why"]
    assert (about["writes"], about["reads"]) == (hook, reads or hook)
    rows = [dict(zip(seen, values, strict=True)) for values in zip(*seen.values(), strict=True)]
    assert len(rows) == len(chosen.position_M)
    for row in rows[::2]:
        kl, loss, control_kl, control_loss, amount = slowly(
            gpt2, sae, text, int(row["feature"]), int(row["control"]), int(row["position"])
        )
        assert row["amount"] == pytest.approx(amount, rel=1e-4)
        assert row["kl"] == pytest.approx(kl, rel=5e-3, abs=1e-7)
        assert row["control_kl"] == pytest.approx(control_kl, rel=5e-3, abs=1e-7)
        assert row["loss"] == pytest.approx(loss, rel=1e-3, abs=1e-5)
        assert row["control_loss"] == pytest.approx(control_loss, rel=1e-3, abs=1e-5)
    # A row a feature, from these.
    assert table["feature"].tolist() == list(range(FEATURES))
    for feature in (2, 3):
        own = [row for row in rows if row["feature"] == feature]
        of, line = {name: np.array([row[name] for row in own]) for name in seen}, table.loc[feature]
        assert (line["positions"], line["documents"]) == (len(own), len(set(of["document"])))
        assert line["testing"] == (of["document"] % 2 == 0).sum()
        assert line["kl"] == pytest.approx(of["kl"].mean(), rel=1e-5)  # a position a document
        assert line["rate"] == pytest.approx(of["kl"].sum() / (of["amount"] ** 2).sum(), rel=1e-5)
        for side, level in (("above", ABOVE), ("below", BELOW)):
            assert line[f"{side}_positions"] == (of["above"] == level).sum()
            assert line[f"{side}_loss"] == pytest.approx(of["loss"][of["above"] == level].mean(), rel=1e-5)


@pytest.fixture(scope="module")
def measured(gpt2, text, tmp_path_factory):
    """Effects of the planted features at the last layer, with their folder."""
    sae, folder = planted(gpt2, LAST), tmp_path_factory.mktemp("effects")
    return measure_effects(gpt2, sae, text, choose(gpt2, sae, text), folder), folder


def test_a_row_that_the_model_takes_away_does_nothing_and_a_strong_one_exceeds_its_controls(measured):
    table = measured[0].to_pandas()
    nothing, much = table.loc[NOTHING], table.loc[MUCH]
    assert nothing["positions"] == much["positions"] == 16
    assert nothing["kl"] < 1e-9
    assert abs(nothing["loss"]) < 1e-5
    assert nothing["control_kl"] > 1e-3
    assert nothing["p"] > 0.99
    assert not nothing["exceeds"]
    assert much["kl"] > 2 * much["control_kl"]
    assert much["p"] < 0.01
    assert much["exceeds"]
    assert much["rate"] > much["null_95"] > nothing["rate"]
    assert much["null_p"] == pytest.approx(1 / (table["positions"] > 0).sum())  # above all others' controls
    assert nothing["null_p"] == 1
    assert much["kl_low"] < much["kl"] < much["kl_high"]


def test_where_controls_are_features_like_any_other_few_exceed_them():
    draw, features, documents = np.random.default_rng(0), 400, 12
    feature = np.repeat(np.arange(features), documents)
    count = len(feature)
    rows = {
        "feature": feature, "document": np.tile(np.arange(documents), features), "position": np.arange(count),
        "above": np.full(count, NO_LEVEL), "activation": np.ones(count), "amount": draw.uniform(1, 3, count),
        "loss": np.zeros(count), "control_loss": np.zeros(count),
    }  # fmt: skip
    rows["kl"], rows["control_kl"] = (draw.lognormal(0, 1.5, count) * rows["amount"] ** 2 for _ in range(2))
    density, testing = np.linspace(0.01, 0.1, features), np.ones(documents, dtype=bool)

    def made():
        return make_table(rows, np.arange(features), density, testing, {}).to_pandas()

    table = made()
    assert (table["p"] <= 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert (table["null_p"] <= 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert table["exceeds"].mean() <= 0.01
    assert table["above_kl"].isna().all()
    assert ((table["kl_low"] < table["kl"]) & (table["kl"] < table["kl_high"])).all()
    rows["kl"] = rows["kl"] * np.where(feature < 100, 20, 1)  # and those that do are found
    table = made()
    assert table["exceeds"][:100].mean() > 0.8
    assert table["exceeds"][100:].mean() < 0.1


def test_positions_of_one_document_are_one_witness():
    """Eight positions of one document tell no more than one of it."""
    rows = {name: np.ones(8) for name in ("activation", "amount", "loss", "control_loss")} | {
        "feature": np.zeros(8, dtype=np.int64), "document": np.repeat([0, 1], [7, 1]), "position": np.arange(8),
        "above": np.full(8, NO_LEVEL), "kl": np.repeat([1.0, 3.0], [7, 1]), "control_kl": np.zeros(8),
    }  # fmt: skip
    row = make_table(rows, np.array([0, 1]), np.ones(2), np.array([True, False]), {}).slice(0, 1).to_pylist()[0]
    assert (row["positions"], row["documents"], row["testing"]) == (8, 2, 7)
    assert (row["kl"], row["p"]) == (2.0, 0.25)
    assert row["rate"] == 10 / 8


def test_the_summary_counts_what_the_table_has(measured):
    table, folder = measured
    said = summarise(table)
    assert (said.features, said.measured) == (FEATURES, (table.to_pandas()["positions"] > 0).sum())
    assert said.measured > FEATURES - 4  # of features drawn at random, some fire nowhere
    assert said.exceed == int(table.to_pandas()["exceeds"].sum())
    assert said.share[0] == said.exceed / FEATURES
    assert f"{said.exceed:,} of {FEATURES:,} features" in said.sentence()
    assert said.sentence().endswith("not what attention carries on.")
    assert read_effects(folder / FILE).equals(table)
    for field in pq.read_schema(folder / FILE):
        assert field.metadata[b"about"].decode() == COLUMNS[field.name][1]


def test_controls_are_other_features_of_like_density_one_at_each_position(gpt2, text):
    sae = planted(gpt2, LAST)
    chosen = choose(gpt2, sae, text, count=4)
    sae.W_dec[7] = 0  # which writes nothing, and so is no control
    control_M = measuring._controls(chosen, text.density_F, sae, 0)
    for feature in set(chosen.feature_M.tolist()):
        own = control_M[chosen.feature_M == feature]
        assert 1 <= len(set(own.tolist())) == len(own) <= 4
        assert not {feature, 7} & set(own.tolist())
        distance = np.abs(np.log(text.density_F) - np.log(text.density_F[feature]))
        near = [f for f in np.argsort(distance, kind="stable") if f not in (feature, 7)][: 4 * len(own)]
        assert set(own.tolist()) <= set(near)
    assert (measuring._controls(chosen, text.density_F, sae, 0) == control_M).all()
    assert (measuring._controls(chosen, text.density_F, sae, 1) != control_M).any()


def test_kl_and_loss_of_small_changes_do_not_drown_in_large_logits():
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(5000, generator=draw) * 3 + 40
    for size in (1e-2, 1e-1, 1.0, 5.0):
        after = before + size * torch.randn(3, 5000, generator=draw) + 7
        p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
        kl, loss = kl_and_loss(before, after, torch.tensor([0, 1, 2]))
        assert kl.double().tolist() == pytest.approx((p.exp() * (p - q)).sum(-1).tolist(), rel=1e-3)
        expected = [float(p[i] - q[row, i]) for row, i in enumerate((0, 1, 2))]
        assert loss.double().tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert kl_and_loss(before, before[None], torch.tensor([3]))[0].tolist() == [0.0]


# ---- killed, and again ----


class Killed(BaseException):
    pass


def test_a_killed_measurement_goes_on_and_ends_with_the_same_bytes(gpt2, text, tmp_path, monkeypatch, measured):
    sae, whole = planted(gpt2, LAST), (measured[1] / FILE).read_bytes()
    chosen, block = choose(gpt2, sae, text), measuring._block
    blocks, done, kills = len(np.unique(chosen.position_M // BLOCK)), [], [2, 9, 15]
    assert blocks >= 16

    def dying(run, number, *more):
        if kills and len(done) == kills[0]:
            kills.pop(0)
            raise Killed
        done.append(number)
        return block(run, number, *more)

    monkeypatch.setattr(measuring, "_block", dying)
    for _ in range(3):
        with pytest.raises(Killed):
            measure_effects(gpt2, sae, text, chosen, tmp_path)
        assert not (tmp_path / FILE).exists()
    measure_effects(gpt2, sae, text, chosen, tmp_path)
    assert (tmp_path / FILE).read_bytes() == whole
    assert len(done) == blocks + 2 + 3 + 2  # the blocks of a part that was cut short are run again
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    measure_effects(gpt2, sae, text, chosen, tmp_path)  # which is done
    assert len(done) == blocks + 7
    kills.append(len(done))
    with pytest.raises(Killed):
        measure_effects(gpt2, sae, text, chosen, tmp_path, EffectsConfig(restart=True))
    assert (tmp_path / FILE).read_bytes() == whole  # until there is another


def test_parts_of_another_measurement_are_thrown_away(gpt2, text, tmp_path, monkeypatch):
    sae, block, done = planted(gpt2, LAST), measuring._block, []
    chosen = choose(gpt2, sae, text, count=3)

    def dying(run, number, *more):
        if len(done) == 2:
            raise Killed
        done.append(number)
        return block(run, number, *more)

    monkeypatch.setattr(measuring, "_block", dying)
    with pytest.raises(Killed):
        measure_effects(gpt2, sae, text, chosen, tmp_path, EffectsConfig(part_blocks=1))
    assert len(list((tmp_path / ".effects").glob("part-*"))) == 2
    monkeypatch.setattr(measuring, "_block", block)
    other = EffectsConfig(part_blocks=1, seed=5)
    alone = measure_effects(gpt2, sae, text, chosen, tmp_path / "alone", other)
    assert measure_effects(gpt2, sae, text, chosen, tmp_path, other).equals(alone)


def test_the_second_of_two_is_told_so(gpt2, text, tmp_path):
    sae = planted(gpt2, LAST)
    with (
        held(tmp_path) as number,
        pytest.raises(InterpError, match=rf"number {number}\) is at work .* so measuring effects"),
    ):
        measure_effects(gpt2, sae, text, choose(gpt2, sae, text, count=1), tmp_path)


# ---- where ----


def test_positions_are_spread_over_activations_sides_and_documents_kept_for_it(wb):
    index = wb.index
    chosen = choose_positions(index, count=6)
    rank_N, split = usable(index), index.documents["split"].to_numpy()[index.document_at[chosen.position_M]]
    assert "labels" in set(split) <= {"labels", "heldout"}
    assert chosen.features.tolist() == list(range(64))
    sided = 0
    for feature in range(64):
        own = chosen.feature_M == feature
        position, side = chosen.position_M[own], chosen.above_M[own]
        fired, value = index.fired(feature)
        testing = fired[rank_N[fired] == 2]
        assert len(set(position.tolist())) == len(position) <= 6
        assert set(position.tolist()) <= set(fired[rank_N[fired] > 0].tolist())
        if len(testing) >= 6:
            assert set(position.tolist()) <= set(testing.tolist())
        assert len(position) == min(6, int((rank_N[fired] > 0).sum()))
        level, now = index.clean_above[feature], value[np.searchsorted(fired, position)]
        if math.isinf(level):
            assert (side == NO_LEVEL).all()
        else:
            assert (side == np.where(now > level, ABOVE, BELOW)).all()
            pool = value[np.isin(fired, testing if len(testing) >= 6 else fired[rank_N[fired] > 0])]
            above, below = int((pool > level).sum()), int((pool <= level).sum())
            assert (side == ABOVE).sum() == min(above, max(3, 6 - below))
            sided += above > 0 and below > 0
    assert sided > 0
    again = choose_positions(index, [5, 3, 5], count=6)
    assert again.features.tolist() == [3, 5]
    assert again.position_M[again.feature_M == 5].tolist() == chosen.position_M[chosen.feature_M == 5].tolist()
    for position in chosen.position_M:
        assert index.document_at[position] == index.document_at[position + 1]
        assert position // index.block == (position + 1) // index.block
        assert index.kept[position]
        assert index.tokens[position + 1] != index.separator


def test_an_index_is_measured(wb, tmp_path):
    """The whole way, on an SAE that was trained."""
    common = np.argsort(-wb.index.features["density"].to_numpy())[:3].tolist()
    chosen = choose_positions(wb.index, common, count=4)
    table = measure_effects(wb.model, wb.sae, Passages.of(wb.index), chosen, tmp_path).to_pandas()
    assert table["feature"].tolist() == sorted(common)
    assert (table["positions"] > 0).all()
    assert (table["testing"] <= table["positions"]).all()
    assert np.isfinite(table[["kl", "control_kl", "loss", "p", "rate"]].to_numpy()).all()


def test_a_feature_that_fires_nowhere_has_a_row_that_says_so(gpt2, text, tmp_path):
    sae = planted(gpt2, LAST)
    chosen = choose(gpt2, sae, text, count=2)
    fires, rest = set(chosen.feature_M.tolist()), chosen.feature_M != 4
    assert {4, 9} < fires
    chosen = Chosen(chosen.features, chosen.feature_M[rest], chosen.position_M[rest], chosen.above_M[rest])
    sae.threshold[9] = math.inf  # chosen from an index in which it fired, and here it does not
    table = measure_effects(gpt2, sae, text, chosen, tmp_path)
    for feature in (4, 9):
        row = table.slice(feature, 1).to_pylist()[0]
        assert row["positions"] == row["documents"] == 0
        assert row["kl"] is row["p"] is row["null_p"] is row["activation"] is None
        assert (row["q"], row["exceeds"]) == (1.0, False)
    assert summarise(table).measured == len(fires) - 2
    assert f"{FEATURES - len(fires) + 2} were nowhere to be measured" in summarise(table).sentence()


# ---- what is not to be had ----


def test_what_does_not_belong_together_is_refused_in_a_sentence(gpt2, tiny, text, tmp_path, wb):
    sae = planted(gpt2, LAST)
    chosen = choose(gpt2, sae, text, count=2)

    def refused(match, *, model=gpt2, sae=sae, text=text, chosen=chosen, config=None):
        with pytest.raises(InterpError, match=match):
            measure_effects(model, sae, text, chosen, tmp_path, config)

    other = SAE(
        W_enc=torch.zeros(16, 3), b_enc=torch.zeros(3), W_dec=torch.zeros(3, 16), b_dec=torch.zeros(16), k=1, reads=LAST
    )
    refused(rf"{LAST} of gpt2 has width {WIDTH} and sae 16: it was made for another model", sae=other)
    short = Passages(text.token_N, text.document_N, text.testing_D, BLOCK, text.density_F[:-1])
    refused(r"the text tells of 39 features and planted has 40: it was indexed with another SAE", text=short)
    far = Chosen(np.arange(3), np.array([1]), np.array([BLOCK * DOCUMENTS]), np.array([0], dtype=np.int8))
    refused(
        r"a position is not followed by a token of the text, which has 960; choose positions of the same", chosen=far
    )
    end = Chosen(np.arange(3), np.array([1]), np.array([BLOCK - 1]), np.array([0], dtype=np.int8))
    refused(rf"position {BLOCK - 1} ends a block, so the token after it was not read with it", chosen=end)
    none = Chosen(np.arange(3), *(np.zeros(0, dtype=np.int64) for _ in range(3)))
    refused(r"no feature fires in text that effects are measured in; index more text", chosen=none)
    many = choose(gpt2, sae, text, count=16)
    dead = Passages(text.token_N, text.document_N, text.testing_D, BLOCK, np.where(np.arange(FEATURES) < 9, 0.1, 0.0))
    refused(r"8 other live features are fewer than the 16 controls; use a wider SAE", text=dead, chosen=many)
    with pytest.raises(InterpError, match=r"at_once is 0; it must be 1 or more"):
        EffectsConfig(at_once=0)
    with pytest.raises(InterpError, match=r"the positions are not a feature, a position and a side each, by feature"):
        Chosen(np.arange(3), np.array([2, 1]), np.array([5, 6]), np.array([0, 0], dtype=np.int8))
    with pytest.raises(InterpError, match=r"0 positions a feature cannot be measured; ask for at least 1"):
        choose_positions(wb.index, count=0)
    with pytest.raises(InterpError, match=r"no feature 64 in .*, which has features 0 to 63"):
        choose_positions(wb.index, [64])
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_file_that_is_no_table_of_effects_is_named(measured, tmp_path):
    table, _ = measured
    with pytest.raises(InterpError, match=r"there is no file .*effects\.parquet"):
        read_effects(tmp_path / FILE)
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "a.parquet")
    with pytest.raises(
        InterpError, match=r"a\.parquet does not say what it was measured on; it is no table of effects"
    ):
        read_effects(tmp_path / "a.parquet")
    pq.write_table(table.drop(["control_kl"]), tmp_path / "b.parquet")
    with pytest.raises(InterpError, match=r"b\.parquet has no column control_kl as this program writes it"):
        read_effects(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes((measured[1] / FILE).read_bytes()[:-30])
    with pytest.raises(InterpError, match=r"c\.parquet cannot be read as a table: it was cut short or changed"):
        read_effects(tmp_path / "c.parquet")
    with pytest.raises(InterpError, match=r"effects\.parquet is of other weights; measure effects anew"):
        read_effects(measured[1] / FILE, made_of=lambda about: "is of other weights")
