"""The index against a dense, obvious computation on the same activations."""

import hashlib
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from interp import objects, places
from interp.activations import harvest, stream
from interp.checkpoint.trained import TrainedOn
from interp.codes import ROWS_AT_ONCE
from interp.corpus import open_corpus
from interp.index import FeatureIndex, IndexConfig, Neurons, build_index, by_feature, parts
from interp.index.coactive import SAMPLED
from interp.index.format import own_sha256
from interp.index.rows import Rows
from interp.index.stats import BANDS, BINS, PER_BAND, QUANTILES, TOP_EXAMPLES, TOP_TOKENS, _hash
from interp.models import Model
from interp.types import InterpError
from interp.workbench import EMBEDDED, Workbench
from tests.conftest import HOOK, ROOT


@pytest.fixture(scope="module")
def wb_card(checkpoint):
    from interp.checkpoint import Card

    return Card.read(checkpoint)


@pytest.fixture(scope="module")
def index(checkpoint) -> FeatureIndex:
    return FeatureIndex.open(checkpoint / "index")


def _dense(sae, store, hook, norm_cutoff) -> tuple[np.ndarray, np.ndarray]:
    """(the float32 values that `SAE.active` gives, which statistics are made of; which positions count)."""
    keep = store.keep(hook, norm_cutoff)
    x = torch.cat([x for _, x in store.in_order(hook)])
    out = torch.zeros(len(x), sae.d_sae)
    for rows in keep.nonzero().squeeze(1).split(ROWS_AT_ONCE):
        out[rows] = sae.active(x[rows]).dense()
    return out.numpy(), keep.numpy()


@pytest.fixture(scope="module")
def planted(checkpoint, store, wb_card, index):
    from interp.checkpoint import load

    return index, *_dense(load(checkpoint), store, HOOK, wb_card.norm_cutoff)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """The shipped SAE over packaged text, read by the real model."""
    wb, folder = Workbench.open(EMBEDDED, labels="sqlite://"), tmp_path_factory.mktemp("packaged")
    hook, options = wb.card.hook_name, {"norm_cutoff": wb.card.norm_cutoff}
    store = harvest(wb.model, open_corpus("wiki-en + python"), [hook], 4_096, folder / "acts")
    build_index(wb.sae, store, wb.model, folder / "index", **options)
    return FeatureIndex.open(folder / "index"), *_dense(wb.sae, store, hook, wb.card.norm_cutoff)


@pytest.fixture(scope="module", params=["planted", "packaged"])
def case(request):
    """(index, exact values of shape (positions, features), which positions count) of a made-up text and of a real one."""
    return request.getfixturevalue(request.param)


def _rows(index):
    """The features that are looked at one by one: all of a small SAE, else 230 evenly spaced and the densest."""
    features = index.features
    few = features if len(features) < 1000 else features.iloc[::40]
    return (*few.itertuples(), next(features.nlargest(1, "fires").itertuples()))


@pytest.fixture(scope="module")
def exact(planted):
    return planted[1]


def test_every_activation_is_there_in_both_orders(case):
    index, codes, _ = case
    positions, features = codes.nonzero()
    for name, order in (("activations", ["feature", "position"]), ("positions", ["position", "feature"])):
        rows = index.sql(f"SELECT feature, position, value FROM {{{name}}}")
        assert rows.equals(rows.sort_values(order, ignore_index=True))
        keys = set(zip(rows["feature"], rows["position"], strict=True))
        assert len(keys) == len(rows)
        assert keys == set(zip(features.tolist(), positions.tolist(), strict=True))
        value = codes[rows["position"], rows["feature"]]
        assert np.allclose(rows["value"].astype(np.float32), value, rtol=2**-10)  # stored in float16


def test_statistics_are_those_of_the_exact_values(case):
    index, exact, keep = case
    for row in _rows(index):
        fired = exact[:, row.feature][exact[:, row.feature] > 0]
        assert row.fires == row.stored == len(fired)
        assert row.density == pytest.approx(len(fired) / keep.sum(), rel=1e-12)
        if not len(fired):
            assert (row.max, row.mean, list(row.top_tokens)) == (0, 0, [])
            continue
        assert row.max == fired.max()
        assert row.mean == pytest.approx(fired.astype(np.float64).mean(), rel=1e-6)
        assert np.allclose(row.quantiles, np.quantile(fired.astype(np.float64), QUANTILES), rtol=1e-6)
        bins = np.minimum((BINS * fired.astype(np.float64) / np.float64(fired.max())).astype(int), BINS - 1)
        assert list(row.histogram) == np.bincount(bins, minlength=BINS).tolist()


def test_tokens_and_documents_are_right_for_every_feature(case):
    index, exact, _ = case
    for row in _rows(index):
        value = exact[:, row.feature].astype(np.float64)
        fired = value > 0
        if not fired.any():
            continue
        total = np.bincount(index.tokens, weights=value)
        count = np.bincount(index.tokens[fired], minlength=len(total))
        best = sorted(np.flatnonzero(count), key=lambda t: (-total[t], t))[:TOP_TOKENS]
        assert np.allclose(total[list(row.top_tokens)], total[best], rtol=1e-12)
        assert [count[t] for t in row.top_tokens] == list(row.top_token_counts)
        share = count[count > 0] / fired.sum()
        assert row.token_entropy == pytest.approx(-(share * np.log(share)).sum(), abs=1e-6)
        assert row.documents == len(set(index.document_at[fired]))


def test_examples_are_the_rule_applied_by_hand(case):
    """The strongest position of each document; the top, then of each fifth those with the smallest hash."""
    index, exact, _ = case
    for feature in index.features.sort_values("fires")["feature"].iloc[[-1, -5, -20, 5]]:
        value = exact[:, feature]
        peaks = {}
        for position in np.flatnonzero(value):
            document = index.document_at[position]
            if document not in peaks or value[position] > value[peaks[document]]:
                peaks[document] = position
        ranked = sorted(peaks.values(), key=lambda p: (-value[p], p))
        expected = [(0, int(p)) for p in ranked[:TOP_EXAMPLES]]
        for band in range(1, BANDS + 1):
            rest = [p for r, p in enumerate(ranked) if r * BANDS // len(ranked) + 1 == band and r >= TOP_EXAMPLES]
            rest.sort(key=lambda p: _hash(np.array([p]))[0])
            expected += [(band, int(p)) for p in rest[:PER_BAND]]
        assert [(e.band, e.position) for e in index.examples(int(feature))] == expected
        if ranked:
            edges = index.row(int(feature))["band_edges"]
            assert edges[0] == value[ranked[0]]
            assert edges[-1] == value[ranked[-1]]


def test_an_examples_window_is_the_text_around_it(case):
    index, codes, _ = case
    feature = int(index.features["fires"].idxmax())
    for e in index.examples(feature):
        assert e.value == pytest.approx(codes[e.position, feature], rel=2e-3)
        assert e.values[e.peak] == e.value
        assert e.tokens[e.peak] == index.vocabulary[index.tokens[e.position]]
        low = e.position - e.peak
        assert np.allclose(e.values, codes[low : low + len(e.values), feature], rtol=2e-3)
        assert len({index.document_at[p] for p in range(low, low + len(e.tokens))}) == 1


def test_coactive_features_are_counted_right(case):
    index, exact, keep = case
    on, kept = exact > 0, keep.sum()
    for row in _rows(index):
        where = np.flatnonzero(on[:, row.feature])
        if len(where) > SAMPLED:
            where = where[np.arange(SAMPLED) * len(where) // SAMPLED]
        assert row.coactive_of == len(where)
        both = on[where].sum(0)
        assert list(row.coactive_count) == both[list(row.coactive)].tolist()
        lift = both / max(len(where), 1) / np.maximum(on.sum(0) / kept, 1e-12)
        assert np.allclose(row.coactive_lift, lift[list(row.coactive)], rtol=1e-5)
        assert row.feature not in row.coactive
        if len(where) and len(where) == on[:, row.feature].sum():  # not sampled: the best by Jaccard index
            union = on.sum(0) + len(where) - both
            jaccard = both / np.maximum(union, 1)
            jaccard[row.feature] = 0
            assert jaccard[list(row.coactive)].sum() == pytest.approx(np.sort(jaccard)[::-1][: len(row.coactive)].sum())


def test_counts_over_marked_positions_and_tokens_are_exact(index, exact, monkeypatch):
    on = exact > 0
    draw = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.9):
        mask = draw.random(len(on)) < share
        assert index.fires_at(mask).tolist() == on[mask].sum(0).tolist()
    tokens = draw.random(len(index.vocabulary)) < 0.3
    assert index.fires_on(tokens).tolist() == on[tokens[index.tokens]].sum(0).tolist()
    # The same from an index too large to keep decoded.
    again = FeatureIndex.open(index.folder)
    monkeypatch.setattr("interp.index.read.CODES_IN_MEMORY", 0)
    mask = draw.random(len(on)) < 0.2
    assert again.fires_at(mask).tolist() == on[mask].sum(0).tolist()
    feature = int(index.features["fires"].idxmax())
    assert index.fired(feature)[0].tolist() == np.flatnonzero(on[:, feature]).tolist()


def test_promoted_tokens_are_those_the_unembedding_says(index, wb):
    unembed, gain = wb.model.unembedding()
    effects = wb.sae.W_dec @ (unembed * gain).T
    effects = (effects - effects.mean(1, keepdim=True)).numpy()
    for row in index.features.itertuples():
        order = np.sort(effects[row.feature])
        assert np.allclose(row.promoted_logits, order[::-1][:10], rtol=1e-3, atol=1e-4)
        assert np.allclose(row.suppressed_logits, order[:10], rtol=1e-3, atol=1e-4)
        assert np.allclose(effects[row.feature][list(row.promoted)], order[::-1][:10], atol=1e-5)
        bins = np.histogram(effects[row.feature], 50)[0]
        assert np.abs(np.cumsum(bins) - np.cumsum(row.logit_histogram)).max() <= 1  # a value on an edge
        assert row.logit_std == pytest.approx(effects[row.feature].std(), rel=1e-3)


def test_nearest_features_and_neurons_are_by_cosine(index, wb):
    unit = torch.nn.functional.normalize(wb.sae.W_dec, dim=1)
    cosine = unit @ unit.T - 4 * torch.eye(len(unit))
    outputs = wb.model.neuron_outputs(16)
    assert sorted(outputs) == [0, 1]
    down = wb.model.module.state_dict()
    weight = next(v for k, v in down.items() if ".1." in k and "down_proj" in k)
    assert torch.equal(outputs[1], weight.T)
    flat = torch.nn.functional.normalize(torch.cat([outputs[0], outputs[1]]), dim=1)
    aligned = unit @ flat.T
    for row in index.features.itertuples():
        best = cosine[row.feature].sort(descending=True).values[: len(row.nearest)]
        assert np.allclose(row.nearest_cosine, best, atol=1e-3)
        top = aligned[row.feature].sort(descending=True).values[: len(row.neurons)]
        assert np.allclose(row.neuron_cosines, top, atol=1e-3)
        where = [32 * layer + n for layer, n in zip(row.neuron_layers, row.neurons, strict=True)]
        assert np.allclose(aligned[row.feature][where], top, atol=1e-3)
    near = index.neurons[(index.neurons["layer"] == 1) & (index.neurons["neuron"] == 3)]
    assert np.allclose(near["cosine"], aligned[:, 32 + 3].sort(descending=True).values[: len(near)], atol=1e-3)


def test_an_examples_index_keeps_whole_windows(wb, store, tmp_path, index):
    options = {"norm_cutoff": wb.card.norm_cutoff, "sae_sha256": wb.card.sae_sha256}
    options["trained"] = TrainedOn.read(wb.folder, wb.card)
    build_index(wb.sae, store, wb.model, tmp_path, IndexConfig(keep="examples"), **options)
    small = FeatureIndex.open(tmp_path)
    assert small.partial
    assert not index.partial
    assert not {"positions.parquet", "pairs.parquet", "unembedding.safetensors"} & set(small.meta["files"])
    for feature in range(64):
        assert small.examples(feature) == index.examples(feature)
    assert small.features["fires"].equals(index.features["fires"])
    assert small.features["stored"].sum() < index.features["stored"].sum()
    with pytest.raises(InterpError, match="keeps examples only"):
        small.fires_at(np.ones(len(small.tokens), dtype=bool))


def _folder_hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


def test_an_index_is_the_same_bytes_on_one_thread_and_on_three(wb, store, tiny: Model, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert IndexConfig().threads == 3
    for folder, config in {"one": IndexConfig(threads=1), "three": IndexConfig()}.items():
        build_index(wb.sae, store, tiny, tmp_path / folder, config, norm_cutoff=wb.card.norm_cutoff)
    made = [_folder_hashes(tmp_path / folder) for folder in ("one", "three")]
    assert made[0] == made[1]


def test_a_killed_build_goes_on_and_two_builds_are_the_same_bytes(wb, tiny: Model, text_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.activations.manifest.SHARD_POSITIONS", 1024)
    store = harvest(tiny, open_corpus(text_folder), [HOOK], 4_096, tmp_path / "acts")
    options = {"norm_cutoff": wb.card.norm_cutoff}
    build_index(wb.sae, store, tiny, tmp_path / "whole", **options)
    real, calls = parts.write_part, []

    def dies(pieces, part, first):
        calls.append(part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(pieces, part, first)

    monkeypatch.setattr(parts, "write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        build_index(wb.sae, store, tiny, tmp_path / "cut", **options)
    with pytest.raises(InterpError, match="there is no index"):
        FeatureIndex.open(tmp_path / "cut")
    build_index(wb.sae, store, tiny, tmp_path / "cut", **options)
    assert len(calls) == 3 + 2  # parts 1 and 2 were not made again
    assert _folder_hashes(tmp_path / "whole") == _folder_hashes(tmp_path / "cut")
    assert not (tmp_path / "cut" / ".build").exists()


def test_a_new_index_replaces_the_old_ones_files_and_nobody_elses(wb, store, tiny, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    build_index(wb.sae, store, tiny, folder, norm_cutoff=wb.card.norm_cutoff)
    assert (folder / "positions.parquet").exists()
    build_index(wb.sae, store, tiny, folder, IndexConfig(keep="examples"), norm_cutoff=wb.card.norm_cutoff)
    assert (folder / "notes.txt").read_text() == "mine"
    files = FeatureIndex.open(folder).meta["files"]
    assert {path.name for path in folder.iterdir()} == {*files, "index.json", "notes.txt"}


def test_a_kill_while_a_new_index_takes_the_old_ones_place_is_made_good(wb, store, tiny, tmp_path, monkeypatch):
    from interp.index import format as disk

    options = {"norm_cutoff": wb.card.norm_cutoff}
    build_index(wb.sae, store, tiny, tmp_path, IndexConfig(keep="examples"), **options)
    real, calls = disk.os.replace, []

    def dies(a, b):
        if str(b).endswith(".parquet") and "made" in str(a):
            calls.append(b)
            if len(calls) == 3:
                raise KeyboardInterrupt
        real(a, b)

    monkeypatch.setattr(disk.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        build_index(wb.sae, store, tiny, tmp_path, **options)
    monkeypatch.setattr(disk.os, "replace", real)
    opened = FeatureIndex.open(tmp_path)
    opened.verify()
    assert not opened.partial
    assert not (tmp_path / ".build").exists()


def test_a_build_with_little_memory_sorts_some_features_at_a_time_into_the_same_bytes(
    wb, store, tiny, tmp_path, monkeypatch
):
    options = {"norm_cutoff": wb.card.norm_cutoff}
    build_index(wb.sae, store, tiny, tmp_path / "a", **options)
    monkeypatch.setattr(by_feature, "SORTED_BYTES", 2**30 / 1000)  # a thousand rows a GiB
    build_index(wb.sae, store, tiny, tmp_path / "b", **options)
    assert len(list(by_feature._ranges(np.full(64, 400), 1000))) == 32
    assert _folder_hashes(tmp_path / "a") == _folder_hashes(tmp_path / "b")


def test_rows_that_the_sort_has_no_memory_for_are_sorted_a_half_at_a_time():
    source = (
        "SELECT (range * 7 % 8)::UINTEGER AS feature, (range * 7919 % 1600000)::UINTEGER AS position, range::FLOAT AS value "
        "FROM range({})"
    )
    with duckdb.connect() as db:
        db.execute("SET memory_limit='40MB'; SET threads=1; SET temp_directory=''")
        with pytest.raises(duckdb.OutOfMemoryException):
            db.sql(f"FROM ({source.format(1_600_000)}) ORDER BY feature, position").to_arrow_reader(1 << 19)
        batches = list(by_feature._stretch(db, source.format(1_600_000), 0, 7))
        with pytest.raises(InterpError, match=r"the rows of feature 3 do not fit the memory .*--memory"):
            list(by_feature._stretch(db, source.format(40_000_000), 3, 3))
    feature, position = (np.concatenate([batch[n].to_numpy() for batch in batches]) for n in ("feature", "position"))
    assert np.array_equal(np.bincount(feature), np.full(8, 200_000))
    assert (np.diff((feature.astype(np.int64) << 32) | position) > 0).all()


def test_a_text_that_does_not_fit_the_memory_is_refused_before_anything_is_done(wb, store, tiny, tmp_path):
    into, options = tmp_path / "a", {"norm_cutoff": wb.card.norm_cutoff}
    build_index(wb.sae, store, tiny, into, **options)
    there = _folder_hashes(into)
    with pytest.raises(InterpError, match=r"8,192 tokens holds 576 KiB of text alone.*--memory"):
        build_index(wb.sae, store, tiny, into, IndexConfig(memory_gib=1e-4), **options)
    assert _folder_hashes(into) == there


def test_a_stream_from_the_model_gives_the_same_index_as_a_store(wb, store, tiny, text_folder, tmp_path):
    options = {"norm_cutoff": wb.card.norm_cutoff}
    build_index(wb.sae, store, tiny, tmp_path / "a", **options)
    build_index(wb.sae, stream(tiny, open_corpus(text_folder), HOOK, 8_192), tiny, tmp_path / "b", **options)
    a, b = _folder_hashes(tmp_path / "a"), _folder_hashes(tmp_path / "b")
    assert a == b


def test_an_extended_index_is_that_of_both_texts(wb, tiny, text_folder, tmp_path):
    corpus = open_corpus(text_folder)
    first, options = stream(tiny, corpus, HOOK, 3_072), {"norm_cutoff": wb.card.norm_cutoff}
    build_index(wb.sae, first, tiny, tmp_path, **options)
    before = FeatureIndex.open(tmp_path)
    old = before.features.copy()
    more = stream(tiny, corpus.without(set(before.documents["sha256"])), HOOK, 2_048)
    build_index(wb.sae, more, tiny, tmp_path, IndexConfig(extend=True), **options)
    build_index(wb.sae, more, tiny, tmp_path / "more", **options)
    both, new = FeatureIndex.open(tmp_path), FeatureIndex.open(tmp_path / "more")
    both.verify()
    assert len(both.tokens) == len(first.blocks.tokens_NT.reshape(-1)) + len(new.tokens)
    assert not both.documents["sha256"].duplicated().any()
    assert (both.features["fires"] == old["fires"] + new.features["fires"]).all()
    assert (both.features["max"] == np.maximum(old["max"], new.features["max"])).all()
    assert np.allclose(both.features["total"], old["total"] + new.features["total"], rtol=1e-12)
    assert (both.features["documents"] == old["documents"] + new.features["documents"]).all()
    feature = int(both.features["fires"].idxmax())
    shift = int(first.positions)
    position, _ = both.fired(feature)
    assert position[position >= shift].tolist() == (new.fired(feature)[0] + shift).tolist()
    assert [text["positions"] for text in both.meta["texts"]] == [first.positions, new.meta["positions"]]
    mask = np.zeros(len(both.tokens), dtype=bool)
    mask[position] = True
    assert both.fires_at(mask)[feature] == len(position)


def test_an_index_of_other_weights_is_not_extended(wb, tiny, text_folder, tmp_path):
    source = stream(tiny, open_corpus(text_folder), HOOK, 1_024)
    build_index(wb.sae, source, tiny, tmp_path, norm_cutoff=1e9, sae_sha256="a")
    with pytest.raises(InterpError, match="has sae_sha256 = 'a', and the text to be added has 'b'"):
        build_index(wb.sae, source, tiny, tmp_path, IndexConfig(extend=True), norm_cutoff=1e9, sae_sha256="b")
    build_index(wb.sae, source, tiny, tmp_path / "e", IndexConfig(keep="examples"), norm_cutoff=1e9)
    with pytest.raises(InterpError, match="keeps examples only, so it cannot be extended"):
        build_index(wb.sae, source, tiny, tmp_path / "e", IndexConfig(extend=True), norm_cutoff=1e9)


@pytest.mark.parametrize("name", ["features.parquet", "activations.parquet", "tokens.parquet", "meanings.safetensors"])
@pytest.mark.parametrize("how", ["cut", "edited"])
def test_a_truncated_or_edited_file_is_named(checkpoint, tmp_path, name, how):
    shutil.copytree(checkpoint / "index", tmp_path / "i")
    path = tmp_path / "i" / name
    raw = bytearray(path.read_bytes())
    if how == "edited":
        raw[len(raw) // 2] ^= 1
    path.write_bytes(raw if how == "edited" else raw[: len(raw) // 2])
    with pytest.raises(InterpError, match=f"{name} is not the file that was written with this index"):
        FeatureIndex.open(tmp_path / "i").verify()


def test_neurons_are_indexed_by_the_same_code_signed(wb, tiny, text_folder, tmp_path):
    hook = "blocks.1.mlp.hook_post"
    neurons = wb.neurons(1)
    source = stream(tiny, open_corpus(text_folder), hook, 2_048)
    build_index(neurons, source, tiny, tmp_path, norm_cutoff=float("inf"))
    index = FeatureIndex.open(tmp_path)
    x = torch.cat([read() for _, _, read in source.pieces(hook)]).float().numpy()
    x = x * source.blocks.real_NT().reshape(-1, 1).numpy()
    assert index.d_sae == 64
    width = x.shape[1]
    order = np.argsort(-np.abs(x), axis=1, kind="stable")[:, :32]  # width is 32: all are kept
    kept = np.zeros_like(x)
    np.put_along_axis(kept, order, np.take_along_axis(x, order, 1), 1)
    for neuron in range(0, width, 5):
        assert index.features["fires"].iat[2 * neuron] == (kept[:, neuron] > 0).sum()
        assert index.features["fires"].iat[2 * neuron + 1] == (kept[:, neuron] < 0).sum()
        assert index.features["max"].iat[2 * neuron + 1] == pytest.approx(max(-kept[:, neuron].min(), 0), rel=1e-6)


def test_only_the_largest_neurons_of_a_position_are_kept():
    neurons = Neurons("n", 0, torch.randn(100, 8))
    x = torch.randn(6, 100)
    active = neurons.active(x)
    assert active.offsets.diff().tolist() == [32] * 6
    dense = active.dense()
    signed = dense[:, 0::2] - dense[:, 1::2]
    for row, kept in zip(x, signed, strict=True):
        best = row.abs().sort(descending=True).indices[:32]
        assert set(kept.nonzero().squeeze(1).tolist()) == set(best.tolist())
        assert torch.equal(kept[best], row[best])


def test_an_index_travels_by_url(checkpoint, index):
    objects.send_folder(checkpoint / "index", "memory://shared/index")
    there = FeatureIndex.open("memory://shared/index")
    there.verify()
    assert there.examples(3) == index.examples(3)
    again = FeatureIndex.open("memory://shared/index")
    assert again.path("features.parquet").stat().st_mtime_ns == there.path("features.parquet").stat().st_mtime_ns
    with pytest.raises(InterpError, match="there is nothing at memory://shared/nowhere"):
        FeatureIndex.open("memory://shared/nowhere")
    with pytest.raises(InterpError, match="nothing://x is of no kind that fsspec opens"):
        FeatureIndex.open("nothing://x")


def test_an_index_of_other_weights_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "s")
    meta = places.read_json(tmp_path / "s" / "index" / "index.json")
    other = meta | {"sae_sha256": "other"}
    places.write_json(tmp_path / "s" / "index" / "index.json", other | {"sha256": own_sha256(other)})
    with pytest.raises(InterpError, match="made for other weights"):
        _ = Workbench.open(tmp_path / "s", labels="sqlite://").index


def test_an_sae_of_another_width_is_refused(store, tiny, tmp_path):
    from interp.sae import SAE

    wrong = SAE(W_enc=torch.eye(8), b_enc=torch.zeros(8), W_dec=torch.eye(8), b_dec=torch.zeros(8), k=1)
    with pytest.raises(InterpError, match="width 16 and the SAE reads 8: it was made for another model"):
        build_index(wrong, store, tiny, tmp_path, norm_cutoff=1e9, hook_name=HOOK)


def test_an_edited_description_of_an_index_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "index"
    shutil.copytree(checkpoint / "index", folder)
    meta = places.read_json(folder / "index.json")
    for edited in (meta | {"block": 128}, {key: value for key, value in meta.items() if key != "d_sae"}):
        places.write_json(folder / "index.json", edited)
        with pytest.raises(InterpError, match="is not as it was written"):
            FeatureIndex.open(folder)


def test_a_harvest_is_indexed_like_the_text_it_is_of(checkpoint, store, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    wb = Workbench.open(checkpoint, labels="sqlite://")
    wb.build_index(store)
    assert (
        FeatureIndex.open(wb.full_index_folder)
        .features["fires"]
        .equals(FeatureIndex.open(checkpoint / "index").features["fires"])
    )
    with pytest.raises(InterpError, match="are in the index already"):
        wb.build_index(store, extend=True)
    from interp.activations import ActivationStore

    with pytest.raises(InterpError, match="there are no activations in .*interp harvest"):
        ActivationStore.open(tmp_path / "nowhere")


def test_nothing_is_said_after_the_end_of_a_checked_process():
    """DuckDB reports each of its objects that is alive when Python ends, and a checker of types can keep them so."""
    program = (
        "from jaxtyping import install_import_hook\n"
        "import tests.shapes\n"
        "install_import_hook('interp', 'tests.shapes.check')\n"
        "import interp.index.read"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_rows_of_a_file_are_the_same_however_they_are_asked_for(tmp_path):
    """In stretches that go on from each other, lie apart, and reach over several groups."""
    pq.write_table(
        pa.table({"a": list(range(20)), "b": list(range(100, 120))}), tmp_path / "rows.parquet", row_group_size=3
    )
    rows = Rows(pq.ParquetFile(tmp_path / "rows.parquet"), ["a"])
    for first, last in [(0, 1), (1, 3), (3, 4), (2, 11), (11, 20), (0, 20), (19, 20), (5, 7)]:
        found = rows.between(first, last)
        assert found.column_names == ["a"]
        assert found["a"].to_pylist() == list(range(first, last))
