import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp import places
from interp.activations import ActivationStore, harvest
from interp.corpus import open_corpus
from interp.types import InterpError

HOOK = "blocks.1.hook_resid_post"


def test_rows_equal_the_models_activations(store, tiny):
    first, x = next(iter(store.in_order(HOOK)))
    tokens = store.blocks.tokens_NT[:2]
    run = tiny.run(tokens, [HOOK]).activations[HOOK]
    assert first == 0
    assert torch.allclose(x[:512].reshape(2, 256, 16), run, atol=1e-5)


def test_the_mask_leaves_out_first_positions_separators_and_massive_norms(store):
    keep = store.keep(HOOK)
    tokens = store.blocks.tokens_NT.reshape(-1)
    assert not keep[0::256].any()
    assert not keep[tokens == 0].any()
    assert not store.keep(HOOK, norm_cutoff=0.0).any()
    norms = store.norms(HOOK)
    real = store.blocks.real_NT().reshape(-1)
    assert store.norm_cutoff(HOOK) == pytest.approx(6 * float(norms[real].median()))


def test_rows_that_are_not_finite_are_counted_and_left_out(tiny, text_folder, tmp_path, capsys):
    store = harvest(tiny, open_corpus(text_folder), [HOOK], 1_024, tmp_path)
    file = tmp_path / "shard-00000.safetensors"

    def spoil(rows):
        tensors = load_file(file)
        tensors[HOOK][rows] = float("nan")
        save_file(tensors | {f"norm/{HOOK}": tensors[HOOK].norm(dim=1)}, file)
        manifest = places.read_json(tmp_path / "manifest.json")  # as a harvest of a model that overflows
        manifest["shards"][0]["sha256"] = places.sha256_file(file)
        places.write_json(tmp_path / "manifest.json", manifest)
        return ActivationStore.open(tmp_path)

    before = store.norm_cutoff(HOOK), int(store.keep(HOOK).sum())
    store = spoil(slice(300, 302))
    capsys.readouterr()
    assert store.norm_cutoff(HOOK) == pytest.approx(before[0], rel=0.1)
    assert f"2 positions of {HOOK} hold a NaN or an infinity" in capsys.readouterr().err
    batches = list(store.batches(HOOK, 64))
    assert len(batches) == (before[1] - 2) // 64
    assert all(bool(batch.isfinite().all()) for batch in batches)
    with pytest.raises(InterpError, match="no position of .* counts: of 1,024 positions .* none of them is finite"):
        spoil(slice(None)).keep(HOOK)


def test_batches_give_every_kept_row_once_an_epoch(store):
    batches = store.batches(HOOK, 64, epochs=1, seed=3)
    rows = torch.cat(list(batches))
    kept = next(iter(store.in_order(HOOK)))[1][store.keep(HOOK)]
    assert len(rows) == len(batches) * 64
    assert len(kept) - len(rows) < 64
    assert set(map(tuple, rows.tolist())) <= set(map(tuple, kept.tolist()))


def test_batches_can_begin_anywhere(tiny, text_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.activations.manifest.SHARD_POSITIONS", 512)
    store = harvest(tiny, open_corpus(text_folder), [HOOK], 4_096, tmp_path)
    assert len(store.shards) == 8
    batches = store.batches(HOOK, 100, epochs=2.5, seed=1, buffer=1024)
    whole = list(batches)
    assert len(whole) == len(batches)
    for first in (0, 1, 9, 40, len(whole) - 1):
        rest = list(batches.from_batch(first))
        assert len(rest) == len(whole) - first
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[first:], strict=True))


def test_a_harvest_goes_on_with_the_first_missing_shard(tiny, text_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.activations.manifest.SHARD_POSITIONS", 512)
    whole = harvest(tiny, open_corpus(text_folder), [HOOK], 2_048, tmp_path / "a")
    real, calls = places.write_json, []

    def dies(path, value):
        real(path, value)
        if value.get("shards"):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr("interp.places.write_json", dies)
    with pytest.raises(KeyboardInterrupt):
        harvest(tiny, open_corpus(text_folder), [HOOK], 2_048, tmp_path / "b")
    with pytest.raises(InterpError, match="not finished"):
        ActivationStore.open(tmp_path / "b")
    with pytest.raises(InterpError, match=r"not finished \(2 shards so far\)"):
        ActivationStore.open(tmp_path / "b", shards=3)
    part = ActivationStore.open(tmp_path / "b", shards=2)
    assert part.positions == 1_024
    assert torch.equal(part.blocks.tokens_NT, whole.blocks.tokens_NT[:4])
    monkeypatch.setattr("interp.places.write_json", real)
    kept = (tmp_path / "b" / "shard-00001.safetensors").stat().st_mtime_ns
    again = harvest(tiny, open_corpus(text_folder), [HOOK], 2_048, tmp_path / "b")
    assert [s["sha256"] for s in again.shards] == [s["sha256"] for s in whole.shards]
    assert (tmp_path / "b" / "shard-00001.safetensors").stat().st_mtime_ns == kept
    assert not list((tmp_path / "b").glob(".*partial"))


def test_one_pass_feeds_many_hook_points(tiny, text_folder, tmp_path):
    hooks = ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"]
    store = harvest(tiny, open_corpus(text_folder), hooks, 1_024, tmp_path)
    run = tiny.run(store.blocks.tokens_NT[:1], hooks).activations
    for hook in hooks:
        assert torch.allclose(next(iter(store.in_order(hook)))[1][:256], run[hook][0], atol=1e-5)


def test_another_harvest_in_the_same_folder_is_refused_by_name(tiny, text_folder, tmp_path):
    harvest(tiny, open_corpus(text_folder), [HOOK], 1_024, tmp_path)
    with pytest.raises(InterpError, match="tokens = 1024, and 2048 was asked"):
        harvest(tiny, open_corpus(text_folder), [HOOK], 2_048, tmp_path)
    assert harvest(tiny, open_corpus(text_folder), [HOOK], 2_048, tmp_path, restart=True).positions == 2_048


def test_a_disk_without_room_is_refused_before_anything_is_computed(tiny, text_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.places.free_bytes", lambda path: 1000)
    with pytest.raises(InterpError, match=r"needs \d+ KiB in .*, which has 1,000 bytes free; ask for fewer tokens"):
        harvest(tiny, open_corpus(text_folder), [HOOK], 1_024, tmp_path)


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path):
    with (
        pytest.raises(InterpError, match="the disk is full while writing"),
        places.whole_file(tmp_path / "x") as partial,
    ):
        partial.write_text("half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
    full = OSError(28, "No space left on device")
    assert "INTERP_HOME" not in str(places.disk_error(tmp_path / "x", full))
    assert "INTERP_HOME" in str(places.disk_error(places.cache() / "x", full))


def test_an_unknown_hook_is_named(store, tiny, text_folder, tmp_path):
    with pytest.raises(InterpError, match="no harvested hook point 'blocks.0.hook_resid_post'"):
        store.keep("blocks.0.hook_resid_post")
    with pytest.raises(InterpError, match="no hook point in"):
        harvest(tiny, open_corpus(text_folder), ["blocks.9.hook_resid_post"], 100, tmp_path)


def test_a_shard_that_is_not_the_harvested_one_is_not_read(store, tmp_path):
    shutil.copytree(store.folder, tmp_path / "store")
    again = ActivationStore.open(tmp_path / "store")
    again.norms(HOOK)
    path = tmp_path / "store" / again.shards[0]["file"]
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InterpError, match=r"is not the shard that was harvested \(its SHA-256 differs"):
        ActivationStore.open(tmp_path / "store").norms(HOOK)


def test_each_shard_is_hashed_once_in_a_process(store, tmp_path, monkeypatch):
    shutil.copytree(store.folder, tmp_path / "store")
    hashed = []
    real = places.sha256_file
    monkeypatch.setattr(places, "sha256_file", lambda path: hashed.append(path) or real(path))
    for _ in range(3):
        ActivationStore.open(tmp_path / "store").norms(HOOK)
    assert len(hashed) == len(store.shards)


def test_a_text_that_cannot_be_read_leaves_no_store_behind(tiny, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a fine row"}\n{"text": "half \\ud83d an emoji"}\n')
    with pytest.raises(InterpError, match="line 2: half a character"):
        harvest(tiny, open_corpus(bad), [HOOK], 1_024, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_how_ones_own_text_was_read_is_in_the_recipe(tiny, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text(
        "id,body,lang\n" + "".join(f'r{i},"Part {i} of a text.",en\n' for i in range(99))
    )
    text = open_corpus(f"{tmp_path}/rows.csv#body@lang")
    store = harvest(tiny, text, [HOOK], 512, tmp_path / "store")
    reading = store.recipe["corpus"]["reading"]
    assert reading["fields"] == {"body": 1}
    assert reading["files_read_in_part"] == 1
    assert set(store.blocks.documents["topic"].to_pylist()) == {"en"}
    said = capsys.readouterr().err
    assert said.index("text: ") < said.index("; their text is the field `body`") < said.index("harvest: ")
    again = harvest(tiny, text, [HOOK], 512, tmp_path / "store")
    assert again.recipe == store.recipe


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/hostname", "a/b", "..\\x", ".."])
def test_a_manifest_cannot_name_a_shard_outside_its_folder(store, tmp_path, name):
    shutil.copytree(store.folder, tmp_path / "acts")
    manifest = json.loads((tmp_path / "acts" / "manifest.json").read_text())
    manifest["shards"][0]["file"] = name
    (tmp_path / "acts" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InterpError, match="which is no file of that folder"):
        ActivationStore.open(tmp_path / "acts")


@pytest.fixture
def sharded(tiny, text_folder, tmp_path, monkeypatch):
    """A store of eight shards, with sinks in it."""
    monkeypatch.setattr("interp.activations.manifest.SHARD_POSITIONS", 512)
    store = harvest(tiny, open_corpus(text_folder), [HOOK], 4_096, tmp_path)
    store._cutoffs[HOOK] = float(store.norms(HOOK)[store.blocks.real_NT().reshape(-1)].quantile(0.97))
    return store


def pairs_of(store, rows):
    """(earlier, later) positions of the pairs that the rows are; without pairs of a row that stands at several positions,
    as at the beginnings of blocks that begin with the same words."""
    places_of = {}
    for first, x in store.in_order(HOOK):
        for p, row in enumerate(x.float().tolist(), first):
            places_of.setdefault(tuple(row), []).append(p)
    found = [(places_of[tuple(a)], places_of[tuple(b)]) for a, b in rows.view(-1, 2, rows.shape[1]).tolist()]
    sure = [(a[0], b[0]) for a, b in found if len(a) == len(b) == 1]
    assert len(sure) > 0.8 * len(found)
    return torch.tensor(sure).T


@pytest.mark.parametrize("pairs", ["neighbours", "document"])
def test_pairs_are_two_counted_positions_of_one_document_in_one_block(sharded, pairs):
    epochs = [torch.cat(list(sharded.batches(HOOK, 2, seed=seed, pairs=pairs))) for seed in (0, 1)]
    found = [pairs_of(sharded, rows) for rows in epochs]
    document, keep = sharded.blocks.document_NT.reshape(-1), sharded.keep(HOOK)
    tokens = sharded.blocks.tokens_NT.reshape(-1)
    for earlier, later in found:
        assert keep[earlier].all()
        assert keep[later].all()
        assert (document[earlier] == document[later]).all()
        assert (earlier // 256 == later // 256).all()
        assert (earlier < later).all()
        assert (later == earlier + 1).all() == (pairs == "neighbours")
        both = torch.cat([earlier, later])
        assert len(both.unique()) == len(both)  # no position twice
        between = [tokens[a + 1 : b] for a, b in zip(earlier.tolist(), later.tolist(), strict=True)]
        assert not any((part == sharded.blocks.separator).any() for part in between)
    assert {tuple(p) for p in found[0].T.tolist()} != {tuple(p) for p in found[1].T.tolist()}
    # A run of odd length leaves one position out: all others are given, so the number does not depend on the seed.
    count = how_many_pairs(sharded, pairs)
    assert [len(rows) for rows in epochs] == [2 * count, 2 * count]
    assert sharded.batches(HOOK, 2, pairs=pairs).rows == 2 * count


def how_many_pairs(store, pairs):
    """In all runs of positions together, by going through them one by one."""
    document, keep = store.blocks.document_NT.reshape(-1).tolist(), store.keep(HOOK).tolist()
    runs, last = [], None
    for p, counts in enumerate(keep):
        if counts:
            same = last is not None and document[p] == document[last] and p // 256 == last // 256
            if same and (pairs == "document" or p == last + 1):
                runs[-1] += 1
            else:
                runs.append(1)
            last = p
    return sum(length // 2 for length in runs)


@pytest.mark.parametrize("pairs", ["neighbours", "document"])
def test_batches_of_pairs_can_begin_anywhere_and_keep_pairs_together(sharded, pairs):
    batches = sharded.batches(HOOK, 100, epochs=2.5, seed=1, buffer=1024, pairs=pairs)
    whole = list(batches)
    assert len(whole) == len(batches)
    for first in (0, 1, 9, 40, len(whole) - 1):
        rest = list(batches.from_batch(first))
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[first:], strict=True))
    document = sharded.blocks.document_NT.reshape(-1)
    for batch in (whole[0], whole[7], whole[-1]):
        earlier, later = pairs_of(sharded, batch)
        assert (document[earlier] == document[later]).all()
        assert len(earlier.unique()) > 40  # and the pairs are mixed
        assert (earlier.sort().values != earlier).any()


def test_batches_without_pairs_are_in_the_order_they_had(sharded):
    """The order that saved runs go on in: shards in a new order, so many at a time, their counted rows permuted."""
    draw = torch.Generator().manual_seed(5 * 1_000_003)
    shards = [sharded.shards[i] for i in torch.randperm(8, generator=draw).tolist()]
    keep, expected = sharded.keep(HOOK), []
    for start in range(0, 8, 2):
        kept = torch.cat([keep[s["first"] : s["first"] + 512] for s in shards[start : start + 2]])
        x = torch.cat([sharded.read(s, HOOK) for s in shards[start : start + 2]])[kept]
        expected.append(x[torch.randperm(len(x), generator=draw)])
    rows = torch.cat(list(sharded.batches(HOOK, 64, seed=5, buffer=1024)))
    assert torch.equal(rows, torch.cat(expected)[: len(rows)].float())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"pairs": "neighbors"}, "no pairing of rows 'neighbors': did you mean neighbours"),
        ({"pairs": "document"}, "odd|even"),
    ],
)
def test_pairs_that_cannot_be_are_said(sharded, how, message):
    with pytest.raises(InterpError, match=message):
        sharded.batches(HOOK, 63, **how)
