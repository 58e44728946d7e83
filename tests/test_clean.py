"""Where a feature has a clean level, searches, verdicts and pages count firings above it, and say what that leaves out."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.index import FeatureIndex
from interp.index.clean import CLEAN
from interp.index.cut import cut
from interp.index.format import publish
from interp.labels import LabelBook
from interp.predicates import Predicate
from interp.search import Collection, search
from interp.steering.detection import Peak, detection, sentence
from interp.types import InterpError
from interp.views import Spectrum, feature_page
from interp.workbench import Workbench
from interp.workbench.known import clean_level, peaks
from tests.test_cli import call


def rewritten(index, folder, columns, drop=(), *, pairs):
    """A copy of the index with other columns in features.parquet and another pairs.parquet."""
    made = folder / ".build" / "made"
    made.mkdir(parents=True)
    for name in index.meta["files"]:
        (made / name).write_bytes((index.folder / name).read_bytes())
    table = pq.read_table(made / "features.parquet").drop_columns(list(drop))
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(column, table[name].type))
    pq.write_table(table, made / "features.parquet")
    pq.write_table(pairs, made / "pairs.parquet")
    publish(made, folder, {key: value for key, value in index.meta.items() if key not in ("files", "sha256")})
    return FeatureIndex.open(folder)


PLANTED = (0.5, 0.9, 0.98)
"""Quantiles of their activations at which the levels of three features are put; all others have none."""


@pytest.fixture(scope="module")
def planted(checkpoint, tmp_path_factory):
    """(an index of which three features have a clean level, their numbers)."""
    index = FeatureIndex.open(checkpoint / "index")
    features = np.argsort(-index.features["fires"].to_numpy().astype(np.int64))[: len(PLANTED)].tolist()
    levels, shares = np.full(index.d_sae, np.nan, dtype=np.float32), np.zeros(index.d_sae, dtype=np.float32)
    counts = [row.tolist() for row in index.features["top_token_counts"]]
    said = [""] * index.d_sae
    pairs = pq.read_table(index.path("pairs.parquet")).to_pandas()
    clean = pairs["count"].to_numpy().copy()
    for f, quantile in zip(features, PLANTED, strict=True):
        position, value = index.fired(f)
        levels[f] = level = float(np.sort(value)[int(quantile * len(value))]) * 1.0003  # between two numbers of float16
        above = value.astype(np.float32) > level
        shares[f] = above.mean()
        said[f] = Predicate(kind="class", here="capitalised").to_json()
        on = np.bincount(index.tokens[position[above]], minlength=len(index.vocabulary))
        counts[f] = on[index.row(f)["top_tokens"]].tolist()
        own = (pairs["feature"] == f).to_numpy()
        clean[own] = on[pairs["token"][own]]
    folder = tmp_path_factory.mktemp("planted")
    columns = {"clean_level": levels, "clean_share": shares, "predicate": said, "top_token_clean": counts}
    numbers = {"clean_n": np.full(index.d_sae, 212), "clean_precision": np.full(index.d_sae, 0.94)}
    ends = {"clean_low": np.full(index.d_sae, 0.9), "clean_high": np.full(index.d_sae, 0.97)}
    table = pa.Table.from_pandas(pairs.assign(clean=clean.astype(np.uint32)), preserve_index=False)
    made = rewritten(index, folder, columns | numbers | ends, pairs=table)
    return made, features


def fired_above(index, f, *, clean=True):
    """(positions, values) of the feature's firings that count."""
    position, value = index.fired(f)
    above = value.astype(np.float32) > (index.clean_above[f] if clean else -np.inf)
    return position[above], value[above]


def book(index):
    return LabelBook("", index.d_sae, url="sqlite://")


# ---- what a build counts ----


def test_a_build_counts_every_pair_above_the_level_as_a_slow_twin_does(checkpoint):
    index = FeatureIndex.open(checkpoint / "index")
    rows = pq.read_table(index.path("pairs.parquet")).to_pandas()
    leveled = 0
    for f in range(index.d_sae):
        position, _ = fired_above(index, f)
        position_all, _ = index.fired(f)
        leveled += np.isfinite(index.clean_above[f]) and len(position) < len(position_all)
        # Activations are stored in float16: one that stood next to the level may lie on its other side.
        near = abs(int(index.clean_fires[f]) - len(position))
        assert near <= max(2, 0.01 * len(position_all))
        own = rows[rows["feature"] == f]
        on = np.bincount(index.tokens[position], minlength=len(index.vocabulary))
        assert np.abs(own["clean"].to_numpy().astype(int) - on[own["token"]]).sum() <= max(2, 0.01 * len(position_all))
        assert own["clean"].sum() == index.clean_fires[f]
        assert (own["clean"] <= own["count"]).all()
        top = own.set_index("token").loc[index.row(f)["top_tokens"]]
        assert index.row(f)["top_token_clean"].tolist() == top["clean"].tolist()
    assert leveled > 3


# ---- searches ----


def test_token_counts_what_is_above_the_level_and_says_what_it_leaves_out(planted, tmp_path):
    index, features = planted
    texts = np.array(index.vocabulary)
    f = features[0]
    token = int(np.bincount(index.tokens[fired_above(index, f)[0]]).argmax())
    query = f'token:"{texts[token].strip()}"' if texts[token].strip() else "token:/./"
    matching = np.array([texts[token].strip() in text for text in texts])
    for clean, written in ((True, query), (False, query.replace("token:", "token@all:"))):
        hits = {hit.feature: hit for hit in search(written, Collection(index, book(index)), limit=index.d_sae)}
        for each in features:
            position, _ = fired_above(index, each, clean=clean)
            both = int(matching[index.tokens[position]].sum())
            total = int(matching[index.tokens[index.kept]].sum())
            if not both:
                assert each not in hits
                continue
            precision, recall = both / len(position), both / total
            assert hits[each].score == pytest.approx(2 * precision * recall / (precision + recall))
            why = hits[each].why["token"]
            assert f"precision {precision:.2f}, recall {recall:.2f}" in why
            all_of_them = len(index.fired(each)[0])
            left = f"; above its clean level {index.clean_above[each]:.3g}, which leaves out "
            left += f"{1 - len(position) / all_of_them:.0%} of its firings"
            assert why.endswith(left) == clean
    others = [hit for hit in hits.values() if hit.feature not in features]
    assert not any("clean level" in hit.why["token"] for hit in others)


def test_features_that_fire_only_below_their_level_are_left_out_and_counted_in_a_note(planted):
    index, features = planted
    f = features[0]
    below = set(index.tokens[index.fired(f)[0]].tolist()) - set(index.tokens[fired_above(index, f)[0]].tolist())
    text = next(index.vocabulary[token] for token in sorted(below) if index.vocabulary[token].isalpha())
    found = search(f"token:/^{text}$/", Collection(index, book(index)), limit=index.d_sae)
    assert f not in [hit.feature for hit in found]
    assert "left out below their clean level: " in found.notes[0]
    assert found.notes[0].endswith("(token@all: counts every firing)")
    everything = search(f"token@all:/^{text}$/", Collection(index, book(index)), limit=index.d_sae)
    assert f in [hit.feature for hit in everything]
    left = len(everything) - len(found)
    assert f": {left} feature{'s' * (left > 1)} (" in found.notes[0]
    assert everything.notes == ()


def spectrum(index, values):
    """A text of as many tokens, at each of which the given (feature, value) are active."""
    rows, features, numbers = zip(*((at, f, v) for at, some in enumerate(values, 1) for f, v in some), strict=True)
    return Spectrum(
        tokens=["<end>", *(f"t{at}" for at in range(len(values)))],
        counted=[False, *(True for _ in values)],
        rows=np.array(rows),
        features=np.array(features),
        values=np.array(numbers, dtype=np.float32),
    )


def test_fires_passes_what_is_above_the_level_on_the_text(planted):
    index, (first, second, _) = planted
    level = {f: float(index.clean_above[f]) for f in (first, second)}
    free = next(f for f in range(index.d_sae) if not np.isfinite(index.clean_above[f]))
    text = spectrum(
        index,
        [[(first, level[first] * 1.5), (second, level[second] * 0.5), (free, 0.01)], [(first, level[first] * 0.5)]],
    )
    collection = Collection(index, book(index), activations=lambda asked: text)

    def found(query):
        hits = search(query, collection)
        return {hit.feature: hit for hit in hits}, hits.notes

    hits, notes = found('fires:"x"')
    assert set(hits) == {first, free}
    assert hits[first].score == pytest.approx(level[first] * 1.5)
    assert "which leaves out " in hits[first].why["fires"]
    assert "clean" not in hits[free].why["fires"]
    assert notes == ('fires:"x": left out below their clean level: 1 feature (fires@all: counts every firing)',)
    hits, notes = found('fires@all:"x"')
    assert (set(hits), notes) == ({first, second, free}, ())
    assert "clean" not in hits[first].why["fires"]
    hits, notes = found('fires@mean:"x"')  # the mean is of all its activation; what passes is clean somewhere
    assert set(hits) == {first, free}
    assert hits[first].score == pytest.approx(level[first])
    assert set(found('fires@mean,all:"x"')[0]) == {first, second, free}
    assert set(found('fires@1:"x"')[0]) == {first, free}
    assert set(found('fires@2:"x"')[0]) == set()
    assert set(found('fires@2,all:"x"')[0]) == {first}
    for wrong in ("fires@some", "fires@all,some", "token@max", "only@mean"):
        with pytest.raises(InterpError, match="no (fires|token|only)@ '(some|max|mean)'"):
            found(f'{wrong}:"x"')


def test_only_counts_tokens_and_density_above_the_level(planted):
    from scipy import stats

    index, (first, second, _) = planted
    level = {f: float(index.clean_above[f]) for f in (first, second)}
    text = spectrum(index, [[(first, level[first] * 2), (second, level[second] * 0.5)] for _ in range(30)])
    collection = Collection(index, book(index), activations=lambda asked: text)
    hits = search('only:"x"', collection)
    assert [hit.feature for hit in hits] == [first]
    kept = np.count_nonzero(index.kept)
    density = (len(fired_above(index, first)[0]) + 0.5) / (kept + 1)
    assert hits[0].score == pytest.approx(-np.log10(stats.binom.sf(29, 30, density)))
    assert "of its firings" in hits[0].why["only"]
    assert hits.notes == ('only:"x": left out below their clean level: 1 feature (only@all: counts every firing)',)
    both = search('only@all:"x"', collection)
    assert {hit.feature for hit in both} == {first, second}
    assert "of its firings" not in both[0].why["only"]


def test_a_small_index_counts_above_the_level_too(planted, tmp_path):
    index, features = planted
    cut(index, tmp_path / "small")
    small = FeatureIndex.open(tmp_path / "small")
    every = np.ones(len(index.vocabulary), dtype=bool)
    for f in features:
        top = index.row(f)["top_tokens"]
        position, _ = fired_above(index, f)
        assert small.fires_on(every, clean=True)[f] == np.isin(index.tokens[position], top).sum()
        assert small.clean_fires[f] == len(position)


def test_an_index_without_levels_is_searched_as_before(planted, tmp_path):
    index, features = planted
    pairs = pq.read_table(index.folder / "pairs.parquet").drop_columns(["clean"])
    old = rewritten(index, tmp_path / "old", {}, drop=list(CLEAN), pairs=pairs)
    assert "clean_level" not in old.features.columns
    for query in ("token:/a/", "token@all:/a/"):
        hits = search(query, Collection(old, book(old)), limit=old.d_sae)
        wanted = search("token@all:/a/", Collection(index, book(index)), limit=index.d_sae)
        assert [(hit.feature, hit.score) for hit in hits] == [(hit.feature, hit.score) for hit in wanted]
        assert hits.notes == ()
    assert feature_page(old, features[0], None).clean_sentence() == ""


# ---- detection ----


def test_detection_is_of_examples_above_the_level_and_says_what_that_leaves_out(checkpoint, planted, tmp_path):
    index, features = planted
    wb = Workbench.open(checkpoint, labels=f"sqlite:///{tmp_path}/l.sqlite")
    wb.__dict__["index"] = index
    f = features[2]
    free = next(g for g in range(index.d_sae) if not np.isfinite(index.clean_above[g]) and index.row(g)["fires"] > 50)
    found = peaks(wb, [f, free])
    values = {g: [e.value for e in index.examples(g)] for g in (f, free)}
    assert len(found[f]) == sum(value > index.clean_above[f] for value in values[f]) < len(values[f])
    assert len(found[free]) == len(values[free])
    detected = wb.detection(f)
    assert detected.tried == len(found[f]) or detected.tried == sum(peak.reserved for peak in found[f])
    assert detected.clean_level == pytest.approx(float(index.clean_above[f]))
    assert detected.clean_share == pytest.approx(len(fired_above(index, f)[0]) / len(index.fired(f)[0]))
    said = sentence(detected)
    share = detected.clean_share
    assert said.startswith(f"above its clean level {detected.clean_level:.3g} ({share:.0%} of its firings; the other ")
    assert f"{1 - share:.0%} are left out), of {detected.tried} examples" in said
    assert clean_level(wb, free) == (None, 1.0)
    assert sentence(wb.detection(free)).startswith("of ")
    of = wb.steerable(f)
    assert (of.clean_level, of.clean_share) == (detected.clean_level, detected.clean_share)
    assert {len(some) for g, some in of.peaks.items() if g == f} == {len(found[f])}


def test_detection_of_a_feature_without_a_level_says_nothing_of_one():
    plain = detection([Peak(token=0, fifth=1), Peak(token=0, fifth=2)], ["a"])
    assert (plain.clean_level, plain.clean_share) == (None, 1.0)
    assert sentence(plain).startswith("of 2 examples")


def test_the_verdict_says_above_which_level_it_looked_and_what_that_leaves_out(checkpoint, planted, tmp_path):
    index, features = planted
    wb = Workbench.open(checkpoint, labels=f"sqlite:///{tmp_path}/l.sqlite")
    wb.__dict__["index"] = index
    verdict = wb.verdict(features[0])
    assert verdict.clean_level == pytest.approx(float(index.clean_above[features[0]]))
    assert (
        f"Detection: above its clean level {verdict.clean_level:.3g} ({verdict.clean_share:.0%} of its"
        in verdict.sentence
    )


# ---- pages ----


def test_a_page_says_the_level_its_share_its_test_and_what_is_left_out(planted):
    index, features = planted
    page = feature_page(index, features[0], None)
    level, share = index.clean_above[features[0]], page.clean.share
    assert page.clean_sentence() == (
        f"clean above {level:.3g}: {share:.0%} of firings, where the token is a word or piece that begins with a capital: "
        f"precision 0.94 (0.90 to 0.97, n 212) on held-out text; {1 - share:.0%} of its firings are below and left out"
    )
    assert page.clean_sentence() in page._repr_html_()
    assert page.clean.query.startswith("token:/")
    free = next(f for f in range(index.d_sae) if not np.isfinite(index.clean_above[f]) and index.row(f)["fires"])
    assert feature_page(index, free, None).clean_sentence().startswith("no clean level: no simple predicate")
    dead = next(f for f in range(index.d_sae) if not index.row(f)["fires"])
    assert feature_page(index, dead, None).clean_sentence() == ""


def test_the_command_line_and_exported_pages_show_it(monkeypatch, capsys, checkpoint, tmp_path):
    wb = Workbench.open(checkpoint, labels=f"sqlite:///{tmp_path}/l.sqlite")
    feature = next(f for f in range(wb.index.d_sae) if wb.index.clean(f) and 0 < wb.index.clean(f).share < 0.95)
    clean = wb.feature(feature).clean
    code, out, _ = call(monkeypatch, capsys, "feature", checkpoint, feature)
    assert code == 0
    assert f"clean above {clean.level:.3g}: {clean.share:.0%} of firings, where {clean.says[:20]}" in out
    code, out, _ = call(monkeypatch, capsys, "feature", checkpoint, feature, "--json")
    told = json.loads(out)
    assert told["clean"]["share"] == pytest.approx(clean.share)
    assert told["clean"]["says"] == clean.says
    assert "clean_level" in told["detection"]
    wb.export("html", tmp_path / "pages", [feature])
    written = (tmp_path / "pages" / f"feature-{feature}.html").read_text()
    assert f"clean above {clean.level:.3g}: {clean.share:.0%} of firings" in written
    at = clean.level / float(wb.index.row(feature)["max"]) * 500
    assert f'<line x1="{at:.1f}"' in written
