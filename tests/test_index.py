"""The index against a dense, obvious computation on the same activations."""

import numpy as np
import pytest
import torch

from interp.activations import harvest
from interp.corpus import open_corpus
from interp.index import FeatureIndex, build_index
from interp.index.build import BINS, IndexConfig
from interp.models import Model
from interp.types import InterpError
from tests.conftest import HOOK


@pytest.fixture(scope="module")
def dense(checkpoint, store, wb_card):
    """(activations of shape (positions, features), kept mask)."""
    from interp.checkpoint import load

    x = torch.cat([x for _, x in store.in_order(HOOK)]).float()
    keep = store.keep(HOOK, wb_card.norm_cutoff)
    return (load(checkpoint).encode(x) * keep[:, None]).numpy(), keep.numpy()


@pytest.fixture(scope="module")
def wb_card(checkpoint):
    from interp.checkpoint import Card

    return Card.read(checkpoint)


@pytest.fixture(scope="module")
def index(checkpoint) -> FeatureIndex:
    return FeatureIndex.open(checkpoint / "index")


def test_every_activation_is_there_in_order(index, dense):
    rows = index.sql("SELECT feature, position, value FROM {activations}")
    keys = list(zip(rows["feature"], rows["position"], strict=True))
    assert keys == sorted(keys)
    codes, _ = dense
    positions, features = codes.nonzero()
    assert set(keys) == set(zip(features.tolist(), positions.tolist(), strict=True))
    value = codes[rows["position"], rows["feature"]]
    assert np.allclose(rows["value"].astype(np.float32), value, rtol=2e-3)  # stored in float16


def test_statistics_are_those_of_the_exact_values(index, dense):
    codes, keep = dense
    for row in index.features.itertuples():
        column = codes[:, row.feature]
        fired = column[column > 0]
        assert row.fires == len(fired)
        assert row.density == pytest.approx(len(fired) / keep.sum())
        if len(fired):
            assert row.max == pytest.approx(fired.max(), rel=1e-5)
            assert row.mean == pytest.approx(fired.mean(), rel=1e-5)
            bins = np.minimum((BINS * fired / np.float32(fired.max())).astype(int), BINS - 1)
            # A value on the edge of a bin may fall on either side.
            assert np.abs(np.cumsum(np.bincount(bins, minlength=BINS)) - np.cumsum(row.histogram)).max() <= 2


def test_top_tokens_and_their_counts_are_right(index, dense):
    codes, _ = dense
    feature = int(index.features["fires"].idxmax())
    row = index.row(feature)
    fired = codes[:, feature] > 0
    for token, count in zip(row["top_tokens"], row["top_token_counts"], strict=True):
        assert count == int((fired & (index.tokens == token)).sum())
    share = np.bincount(index.tokens[fired]) / fired.sum()
    assert row["token_entropy"] == pytest.approx(-sum(p * np.log(p) for p in share if p), rel=1e-5)
    assert row["documents"] == len(set(index._documents_at[fired]))


def test_examples_are_pinned_to_the_positions_where_the_feature_fires(index, dense):
    codes, _ = dense
    feature = int(index.features["fires"].idxmax())
    examples = index.examples(feature)
    assert len(examples) >= 20
    assert [e.value for e in examples if e.band == 0] == sorted(
        (e.value for e in examples if e.band == 0), reverse=True
    )
    for e in examples:
        assert e.value == pytest.approx(codes[e.position, feature], rel=2e-3)
        assert e.values[e.peak] == e.value
        assert e.tokens[e.peak] == index.vocabulary[index.tokens[e.position]]
        low = e.position - e.peak
        assert np.allclose(e.values, codes[low : low + len(e.values), feature], rtol=2e-3)
        assert len({index._documents_at[p] for p in range(low, low + len(e.tokens))}) == 1


def test_promoted_tokens_are_those_the_unembedding_says(index, wb):
    unembed, gain = wb.model.unembedding()
    effect = wb.sae.W_dec[5] @ (unembed * gain).T
    effect = effect - effect.mean()
    row = index.row(5)
    assert row["promoted"][0] == int(effect.argmax())
    assert row["suppressed"][0] == int(effect.argmin())
    assert float(row["promoted_logits"][0]) == pytest.approx(float(effect.max()), rel=1e-2)


def test_nearest_features_are_by_decoder_cosine(index, wb):
    cosine = torch.nn.functional.cosine_similarity(wb.sae.W_dec[3:4], wb.sae.W_dec)
    cosine[3] = -2
    assert index.row(3)["nearest"][0] == int(cosine.argmax())


def test_an_examples_index_keeps_whole_windows(wb, store, tmp_path, index):
    options = {"norm_cutoff": wb.card.norm_cutoff, "sae_sha256": wb.card.sae_sha256}
    build_index(wb.sae, store, wb.model, tmp_path, IndexConfig(keep="examples"), **options)
    small = FeatureIndex.open(tmp_path)
    assert small.partial
    assert not index.partial
    assert not (tmp_path / "positions.parquet").exists()
    feature = int(index.features["fires"].idxmax())
    assert small.examples(feature) == index.examples(feature)


def test_a_killed_build_goes_on_and_gives_the_same(wb, tiny: Model, text_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.activations.SHARD_POSITIONS", 1024)
    store = harvest(tiny, open_corpus(text_folder), [HOOK], 4_096, tmp_path / "acts")
    options = {"norm_cutoff": wb.card.norm_cutoff}
    build_index(wb.sae, store, tiny, tmp_path / "whole", **options)
    from interp.index import build

    real, calls = build._write_part, []

    def dies(pieces, part):
        calls.append(part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(pieces, part)

    monkeypatch.setattr(build, "_write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        build_index(wb.sae, store, tiny, tmp_path / "cut", **options)
    with pytest.raises(InterpError, match="there is no index"):
        FeatureIndex.open(tmp_path / "cut")
    build_index(wb.sae, store, tiny, tmp_path / "cut", **options)
    assert len(calls) == 3 + 2  # parts 1 and 2 were not made again
    a, b = FeatureIndex.open(tmp_path / "whole"), FeatureIndex.open(tmp_path / "cut")
    assert a.sql("FROM {activations}").equals(b.sql("FROM {activations}"))
    assert not (tmp_path / "cut" / ".build").exists()


def test_an_index_of_other_weights_is_refused(checkpoint, tmp_path):
    import shutil

    from interp import places
    from interp.workbench import Workbench

    shutil.copytree(checkpoint, tmp_path / "s")
    meta = places.read_json(tmp_path / "s" / "index" / "index.json")
    places.write_json(tmp_path / "s" / "index" / "index.json", meta | {"sae_sha256": "other"})
    with pytest.raises(InterpError, match="made for other weights"):
        _ = Workbench.open(tmp_path / "s", labels="sqlite://").index


def test_an_sae_of_another_width_is_refused(store, tiny, tmp_path):
    from interp.sae import SAE

    wrong = SAE(W_enc=torch.eye(8), b_enc=torch.zeros(8), W_dec=torch.eye(8), b_dec=torch.zeros(8), k=1)
    with pytest.raises(InterpError, match="width 16 and the SAE reads 8: it was made for another model"):
        build_index(wrong, store, tiny, tmp_path, norm_cutoff=1e9, hook_name=HOOK)
