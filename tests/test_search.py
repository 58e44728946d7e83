import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import places
from interp.index import FeatureIndex, IndexConfig, build_index
from interp.labels import LabelBook
from interp.render import visible
from interp.search import KEYS, parse
from interp.search.contrast import contrast, texts, warning
from interp.search.keys import HANDLERS
from interp.search.query import OPTION_KEYS, REGEX_KEYS, SORTS, And, Not, Or, Query, Term
from interp.statistics import wilson
from interp.types import InterpError
from interp.workbench import Workbench


@pytest.fixture(scope="module")
def small(checkpoint, store, tmp_path_factory) -> Workbench:
    """The same SAE with an index that keeps examples only."""
    wb = Workbench.open(checkpoint, labels="sqlite://")
    folder = tmp_path_factory.mktemp("small")
    options = {"norm_cutoff": wb.card.norm_cutoff, "sae_sha256": wb.card.sae_sha256}
    build_index(wb.sae, store, wb.model, folder, IndexConfig(keep="examples"), **options)
    wb.__dict__["index"] = FeatureIndex.open(folder)
    return wb


# ---- the language ----


def test_a_query_is_read_into_its_conditions():
    query = parse(r'token:/a\/b|c/ density:1e-5..1e-2 promotes:" France" "two words" word sort:max')
    assert [(t.key, t.value, t.regex) for t in query.terms] == [
        ("token", "a/b|c", True),
        ("density", "1e-5..1e-2", False),
        ("promotes", " France", False),
        ("text", "two words", False),
        ("text", "word", False),
    ]
    assert query.sort == "max"


def test_and_or_not_and_parentheses_bind_as_in_algebra():
    a, b, c = (Term("like", n) for n in "123")
    assert parse("like:1 like:2 or like:3").root == Or((And((a, b)), c))
    assert parse("like:1 (like:2 OR like:3)").root == And((a, Or((b, c))))
    assert parse("like:1 and not like:2").root == And((a, Not(b)))
    assert parse("not (like:1 like:2)").root == Not(And((a, b)))
    assert parse("not not like:1").root == Not(Not(a))


def test_bare_words_that_follow_each_other_are_one_text():
    assert parse("european capitals like:1 of old").terms == (
        Term("text", "european capitals"),
        Term("like", "1"),
        Term("text", "of old"),
    )
    assert [t.quoted for t in parse('"european capitals"').terms] == [True]


def test_flags_behind_a_regex_are_read_and_other_letters_refused(wb):
    assert parse("token:/paris/i").root == Term("token", "(?i)paris", regex=True)
    assert str(parse(r"context:/a\/b/im")) == r"context:/(?im)a\/b/"
    both, upper = wb.search("token:/p(?i:aris)|P(?i:aris)/"), wb.search("token:/paris/i")
    assert [hit.feature for hit in both] == [hit.feature for hit in upper]
    with pytest.raises(InterpError, match=r"/paris/g has no flag 'g' \(at character 1\); there is i \(either case\)"):
        parse("token:/paris/g")
    with pytest.raises(InterpError, match=r"neither a text nor one /regex/"):
        parse("token:/usr/bin/")
    assert parse('token:"/usr/bin/"').root == Term("token", "/usr/bin/", quoted=True)


def test_no_hits_say_that_nothing_indexed_matches(wb, small):
    for bench in (wb, small):
        for query in ("token:/qqzz/", "context:/qqzz/", "token:/qqzz/ or context:/qqzz/"):
            hits = bench.search(query)
            assert not hits
            assert len(hits.notes) == query.count("qqzz")
            assert all("no indexed" in note for note in hits.notes)
            assert "no indexed" in hits._repr_html_()
        assert bench.search("token@all:/Paris/").notes == ()
        assert not any("no indexed" in note for note in bench.search("token:/Paris/").notes)


def test_the_place_of_a_condition_is_kept():
    assert [t.at for t in parse("like:1  (like:2)").terms] == [1, 10]


VALUES = st.text(min_size=1, max_size=12).filter(lambda s: s.strip())


@st.composite
def _terms(draw):
    key = draw(st.sampled_from([key for key in KEYS if key != "sort"]))
    if key == "at":
        inner = Or((Term("token", draw(VALUES), quoted=True), Not(Term("is", "digit"))))
        return Term(key, str(inner), inner=inner)
    option = draw(st.sampled_from(["", "mean", "3", "-1"])) if key in OPTION_KEYS else ""
    if key in REGEX_KEYS and draw(st.booleans()):
        body = draw(st.text(alphabet="ab/.*+|() \t", min_size=1, max_size=8))
        return Term(key, body, regex=True, option=option)
    return Term(key, draw(VALUES), quoted=True, option=option)


@st.composite
def _nodes(draw, depth=3):
    kind = draw(st.sampled_from(["term", "term", "not", "and", "or"])) if depth else "term"
    if kind == "term":
        return draw(_terms())
    if kind == "not":
        return Not(draw(_nodes(depth - 1)))
    items = tuple(draw(st.lists(_nodes(depth - 1), min_size=2, max_size=3)))
    return And(items) if kind == "and" else Or(items)


@settings(max_examples=300, deadline=None)
@given(_nodes(), st.sampled_from(SORTS))
def test_what_is_written_is_read_back(node, sort):
    query = Query(node, sort)
    assert parse(str(query)) == query


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet='abnotrd "/\\:().@1-', max_size=40) | st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        query = parse(text)
    except InterpError:
        return
    assert parse(str(query)) == query


def test_a_query_as_deep_as_the_reader_goes_is_refused_without_a_crash():
    with pytest.raises(InterpError, match="more than 50 deep"):
        parse("(" * 5000 + "like:1" + ")" * 5000)
    with pytest.raises(InterpError, match="more than 50 deep"):
        parse("not " * 5000 + "like:1")


def test_every_key_is_explained_and_handled():
    assert set(KEYS) - {"sort"} == set(HANDLERS)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tokens:/a/", r"no search key \(at character 1\) 'tokens': did you mean token"),
        ('a token:"open', r"cannot be read from character 3"),
        ("(like:1", "a \\( is not closed"),
        ("like:1)", "there is no \\( for this"),
        ("()", "nothing between"),
        ("or like:1", "either side of or"),
        ("like:1 or", "either side of or"),
        ("and like:1", "either side of and"),
        ("like:1 not", "not must stand before a condition"),
        ("like@3:1", "like: takes no @"),
        ('like:""', "has nothing to look for"),
        ("density:many", "is no range"),
        ("density:2..1", "is empty"),
        ("token:/(?=a)/", "no regular expression RE2 takes .*lookaround"),
        ("context:/(a)\\1/", "no regular expression RE2 takes"),
        ("token:/a*/", "matches the empty text"),
        ("topic:/(/", "no regular expression RE2 takes"),
        ("sort:size", "no sort order 'size'"),
        ("like:x", "by its number"),
        ("with:999", "no feature 999"),
        ("like:999", "no feature 999"),
        ("neuron:3", "must be LAYER.NUMBER"),
        ("neuron:9.1", "knows layers 0 to 1, neurons 0 to 31"),
        ("status:good", "no label status 'good'"),
        ("dead:perhaps", "neither yes nor no"),
        ('promotes:"qqqqqq"', "no token 'qqqqqq'"),
        ("topic:nonsense", "no topic among the index's documents 'nonsense'"),
        ('fires@last:"Paris"', "no fires@ 'last'"),
        ('fires@99:"Paris"', "the text has tokens 0 to"),
        ("contrast:a.txt", "names 1 set"),
        ("contrast:a.txt,b.txt", "there is no file or folder a.txt"),
        ("text:/a/", "takes no /regex/"),
        ("tokens:/a/", "The keys are text, token, context"),
        ("like: 17", r"like: has nothing to look for \(at character 1\)"),
        ("density:1e-5.. max: 3", r"max: has nothing to look for \(at character 16\)"),
        ("like:²", "by its number"),
        ("neuron:1.²", "must be LAYER.NUMBER"),
        ('fires@²:"Paris"', "no fires@ '²'"),
        (r"context:/\Qabc/", "no regular expression RE2 takes"),
        (r"context:/\b/", "matches the empty text"),
    ],
)
def test_a_mistake_in_a_query_is_answered_with_what_exists(wb, query, message):
    with pytest.raises(InterpError, match=message):
        wb.search(query)


# ---- the keys, each against the obvious computation ----


def _fired(index) -> np.ndarray:
    """(positions, features): whether it fires."""
    rows = index.sql("SELECT feature, position FROM {activations}")
    on = np.zeros((len(index.tokens), index.d_sae), dtype=bool)
    on[rows["position"], rows["feature"]] = True
    return on


def _check_predicate(hits, on, mask):
    assert hits.total == (on[mask].any(0)).sum()
    for hit in hits:
        both = on[mask, hit.feature].sum()
        assert hit.score == pytest.approx(2 * both / (on[:, hit.feature].sum() + mask.sum()), abs=1e-9)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_a_token_query_gives_precision_recall_and_f1_over_the_index(wb):
    index, on = wb.index, _fired(wb.index)
    hits = wb.search("token@all:/^ Paris$/", limit=64)  # tests/test_clean.py has what is above clean levels
    paris = index.vocabulary.index(" Paris")
    mask = (index.tokens == paris) & index.kept
    assert mask.sum() > 10
    _check_predicate(hits, on, mask)
    f = hits[0].feature
    both = on[mask, f].sum()
    assert (
        hits[0]
        .why["token"]
        .startswith(f"precision {both / on[:, f].sum():.2f}, recall {both / mask.sum():.2f} over {mask.sum()} matching")
    )
    assert wb.search('token:"Paris"', limit=64).total == wb.search("token:/Paris/").total


@pytest.mark.parametrize("pattern", ["capital of", r"\d+", "cat|dog", r"(?i)PARIS", r"^The", r"Part \d+\.$", "é"])
def test_a_context_query_counts_the_tokens_around_every_match(wb, pattern):
    index, on = wb.index, _fired(wb.index)
    raw, mask = index.vocabulary_bytes, np.zeros(len(index.tokens), dtype=bool)
    for document in np.unique(index.document_at):
        at = np.flatnonzero(index.document_at == document)
        pieces = [b"" if index.tokens[p] == index.separator else raw[index.tokens[p]] for p in at]
        text = b"".join(pieces).decode("utf-8", errors="replace")
        ends = np.cumsum([len(piece) for piece in pieces])
        # Python's $ also matches before a last line break; the texts here have none at their end.
        for match in re.finditer(pattern, text):
            begin, end = len(text[: match.start()].encode()), len(text[: match.end()].encode())
            first, last = np.searchsorted(ends, [begin, end - 1], side="right")
            mask[max(at[first] - 16, at[0]) : min(at[last] + 16, at[-1]) + 1] = True
    mask &= index.kept
    hits = wb.search(f"context:/{pattern}/", limit=64)
    _check_predicate(hits, on, mask)
    if hits:
        assert f"over {mask.sum():,} tokens around" in hits[0].why["context"]


def test_a_topic_query_finds_features_of_its_documents(wb):
    index, on = wb.index, _fired(wb.index)
    wanted = (index.documents["topic"] == "t2").to_numpy()
    mask = wanted[index.document_at] & index.kept
    hits = wb.search("topic:t2", limit=64)
    base = mask.sum() / index.kept.sum()
    for hit in hits:
        both, fires = on[mask, hit.feature].sum(), on[:, hit.feature].sum()
        assert hit.score == pytest.approx(wilson(int(both), int(fires))[1] / base, rel=1e-6)
        assert hit.score > 1
    assert hits
    assert {h.feature for h in wb.search("topic:/^t2$/", limit=64)} == {h.feature for h in hits}
    assert wb.search("topic:source=docs.jsonl", limit=64).total == 0  # all of the text: nothing is concentrated there


def test_features_that_fire_together_are_counted_over_the_whole_index(wb):
    on = _fired(wb.index)
    feature = int(wb.index.features["fires"].idxmax())
    for hit in wb.search(f"with:{feature}", limit=64):
        both = (on[:, feature] & on[:, hit.feature]).sum()
        assert hit.score == pytest.approx(both / (on[:, feature] | on[:, hit.feature]).sum())
        assert both * wb.index.kept.sum() > on[:, feature].sum() * on[:, hit.feature].sum()


def test_like_gives_the_nearest_features(wb):
    unit = wb.sae.W_dec / wb.sae.W_dec.norm(dim=1, keepdim=True)
    cosine = (unit @ unit[3]).numpy()
    hits = wb.search("like:3", limit=64)
    assert hits.total >= 10
    assert [h.score for h in hits] == pytest.approx(sorted(np.delete(cosine, 3), reverse=True)[: hits.total], abs=1e-5)


def test_promotes_gives_every_feature_that_raises_the_token_enough(wb):
    unembed, gain = wb.model.unembedding()
    effects = wb.sae.W_dec @ (unembed * gain).T
    effects = (effects - effects.mean(1, keepdim=True)).numpy()
    token = wb.index.vocabulary.index(" Paris")
    z = effects[:, token] / effects.std(1)
    for key, sign in (("promotes", 1), ("suppresses", -1)):
        hits = wb.search(f'{key}:" Paris"', limit=64)
        clear = {f for f in range(64) if sign * z[f] > 2.01}
        assert clear <= {h.feature for h in hits} <= {f for f in range(64) if sign * z[f] > 1.99}
        for hit in hits:
            assert hit.score == pytest.approx(sign * effects[hit.feature, token], rel=2e-2, abs=1e-3)
            assert not hit.partial
    several = wb.search("promotes:/^ (Paris|Rome)$/", limit=64)
    rome = wb.index.vocabulary.index(" Rome")
    for hit in several:
        assert hit.score == pytest.approx(max(effects[hit.feature, [token, rome]]), rel=2e-2, abs=1e-3)


def test_promotes_is_as_complete_with_a_small_index(small, wb):
    """From the weights: the ten tokens a feature that an index keeps are no answer."""
    for query in ('promotes:" Paris"', 'suppresses:" Paris"', "promotes:/^ (Paris|Rome)$/", "promotes:/./"):
        few, all_ = small.search(query, limit=64), wb.search(query, limit=64)
        assert not few.partial
        assert not any(hit.partial for hit in few)
        scores = {hit.feature: hit.score for hit in all_}
        assert {hit.feature: hit.score for hit in few} == pytest.approx(scores, rel=2e-3)
        assert few.total > 0


def test_the_model_is_opened_for_promotes_once_a_machine(small, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    expected = [hit.score for hit in small.search('promotes:" Paris"', limit=64)]
    again = Workbench.open(small.folder, labels="sqlite://")
    again.__dict__["index"] = small.index
    opened = []
    monkeypatch.setattr("interp.workbench.opening.open_model", lambda *a, **k: opened.append(1) or small.model)
    assert [hit.score for hit in again.search('promotes:" Paris"', limit=64)] == expected
    assert not opened
    (kept,) = (tmp_path / "cache" / "unembeddings").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])  # cut short
    assert [hit.score for hit in again.search('promotes:" Paris"', limit=64)] == expected
    assert opened == [1]


def test_promotes_is_refused_where_the_decoder_does_not_write_what_is_unembedded(wb, monkeypatch):
    monkeypatch.setattr("interp.workbench.finding.unembedding_rows", lambda *a: torch.zeros(1, 24))
    with pytest.raises(InterpError, match="reads width 24 and this SAE writes width 16"):
        wb.search('promotes:" Paris"')


def test_a_description_promotes_only_tokens_that_the_text_has(wb):
    index = wb.index
    texts = [index.vocabulary[token] for token in np.flatnonzero(index.token_counts)]
    said = [re.findall("‘(.*?)’", text.partition("; promotes ")[2]) for text in index.descriptions]
    assert sum(map(len, said)) > 64
    assert {token for tokens in said for token in tokens} <= {visible(text.strip(" ") or text) for text in texts}
    page = wb.feature(3)
    assert page.promoted_times == [int(index.token_counts[t]) for t in index.row(3)["promoted"]]
    assert 0 in page.promoted_times  # the whole list stays, each token with how often the text has it


def test_a_description_says_how_many_firings_are_on_the_tokens_it_names(wb):
    index = wb.index
    for feature in range(64):
        row, says = index.row(feature), index.describe(feature)
        if row["fires"]:
            named = re.findall("‘(.*?)’", says.partition(" (")[0])
            tokens = [visible(text.strip().lower() or text) for text in index.text(row["top_tokens"])]
            counts = zip(tokens, row["top_token_counts"], strict=True)
            on = sum(int(n) for text, n in counts if text in {word.lower() for word in named})
            assert f"({on / row['fires']:.0%} of its firings)" in says


def test_neuron_gives_the_features_nearest_to_what_it_writes(wb):
    out = wb.model.neuron_outputs(16)[1][3]
    cosine = (wb.sae.W_dec @ out / wb.sae.W_dec.norm(dim=1) / out.norm()).numpy()
    hits = wb.search("neuron:1.3", limit=64)
    assert [h.score for h in hits] == pytest.approx(sorted(cosine, reverse=True)[: len(hits)], abs=1e-3)


def test_fires_finds_what_is_active_on_a_text_at_most_on_average_or_at_a_token(wb):
    text = "The capital of France is Paris"
    spectrum = wb.spectrum(text)
    dense = spectrum.matrix(list(range(64)))
    for query, values in (
        ("fires@all", dense.max(1)),
        ("fires@mean,all", dense.sum(1) / sum(spectrum.counted)),
        ("fires@3,all", dense[:, 3]),
        ("fires@-1,all", dense[:, -1]),
    ):
        hits = wb.search(f'{query}:"{text}"', limit=64)
        assert [h.score for h in hits] == pytest.approx(sorted((v for v in values if v > 0), reverse=True))


def test_only_keeps_what_its_density_does_not_explain(wb):
    from math import comb

    text = "The capital of France is Paris"
    spectrum = wb.spectrum(text)
    tokens, index = sum(spectrum.counted), wb.index
    for hit in wb.search(f'only@all:"{text}"', limit=64):
        n = int((spectrum.matrix([hit.feature]) > 0).sum())
        d = (index.features["fires"].iat[hit.feature] + 0.5) / (index.kept.sum() + 1)
        tail = sum(comb(tokens, i) * d**i * (1 - d) ** (tokens - i) for i in range(n, tokens + 1))
        assert hit.score == pytest.approx(-np.log10(tail), rel=1e-6)


def test_conditions_narrow_and_ranges_hold(wb):
    every = wb.search("", limit=100)
    assert every.total == 64
    some = wb.search("density:1e-3..1e-1 max:0..1000", limit=100)
    assert 0 < some.total <= 64
    assert all(1e-3 <= hit.density <= 1e-1 for hit in some)
    assert wb.search("dead:yes").total + wb.search("dead:no").total == 64


def test_or_and_not_are_set_algebra(wb):
    a, b = ({h.feature for h in wb.search(q, limit=64)} for q in ("like:3", "with:5"))
    assert {h.feature for h in wb.search("like:3 or with:5", limit=64)} == a | b
    assert {h.feature for h in wb.search("like:3 with:5", limit=64)} == a & b
    assert {h.feature for h in wb.search("like:3 not with:5", limit=64)} == a - b
    assert {h.feature for h in wb.search("not (like:3 or with:5)", limit=64)} == set(range(64)) - a - b
    for hit in wb.search("like:3 or with:5", limit=64):
        assert set(hit.why) == {key for key, these in (("like", a), ("with", b)) if hit.feature in these}


def test_what_must_not_hold_is_told_too(wb):
    hit = wb.search("not like:17 not (density:2.. or with:17)", limit=1)[0]
    assert set(hit.why) == {"not like:17", "not density:2..", "not with:17"}
    assert "cosine" in hit.why["not like:17"]
    assert hit.scores == {}


def test_quoted_words_are_whole_words(wb):
    wb.labels.set(11, "Modern art; 東京の駅")
    wb.labels.set(12, "Start of a party")
    assert [h.feature for h in wb.search('"art" labelled:yes')] == [11]
    assert [h.feature for h in wb.search('"京の"')] == [11]
    assert [h.feature for h in wb.search('"art;" labelled:yes')] == [11]


def test_a_quoted_line_end_is_a_line_end(wb):
    term = parse(r'token:"a\n\t\"\\n"').terms[0]
    assert term.value == 'a\n\t"\\n'
    assert parse(str(term)).terms == (term,)


def test_a_key_that_comes_twice_is_told_apart(wb):
    hits = wb.search('token:" Paris" or token:" Rome"', limit=64)
    assert set().union(*(hit.why for hit in hits)) == {'token:" Paris"', 'token:" Rome"'}


def test_results_are_sorted_and_ties_go_by_number(wb):
    by_max = [hit.max for hit in wb.search("sort:max", limit=64)]
    assert by_max == sorted(by_max, reverse=True)
    assert [hit.feature for hit in wb.search("", limit=64)] == list(range(64))


def test_labels_are_found_by_their_words_their_meaning_and_status(wb):
    wb.labels.set(7, "European capitals", author="me", status="confirmed")
    wb.labels.set(9, "Diseases", author="you", note="and their treatment")
    (hit,) = wb.search('text:"european capitals"')
    assert (hit.feature, hit.label, hit.automatic) == (7, "European capitals", False)
    assert wb.search("big cities of Europe")[0].feature == 7
    assert wb.search("medicine")[0].feature == 9
    assert wb.search('"treatment"')[0].feature == 9
    assert [h.feature for h in wb.search("status:confirmed author:me")] == [7]
    assert {h.feature for h in wb.search("labelled:yes")} == {7, 9}


def test_a_label_is_found_by_meaning_as_soon_as_it_is_written(wb):
    assert wb.search("astronomy planets").total == 0 or wb.search("astronomy planets")[0].label != "Saturn"
    wb.labels.set(4, "Saturn")
    assert wb.search("astronomy planets")[0].label == "Saturn"


def test_several_keys_are_joined_by_rank(wb):
    joined = wb.search('token:/capital|Paris/ fires:"The capital of France is Paris"', limit=64)
    assert joined.total > 0
    assert all(set(hit.why) == set(hit.scores) == {"token", "fires"} for hit in joined)
    for hit in joined:
        ranks = [1 + sum(other.scores[key] > hit.scores[key] for other in joined) for key in ("token", "fires")]
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks), abs=3e-4)


def test_a_small_index_answers_from_its_examples_and_says_so(small):
    for query in ("token:/Paris/", "context:/capital of/", "with:5", "topic:t2"):
        hits = small.search(query, limit=64)
        assert hits.partial, query
        assert all(hit.partial for hit in hits)
    full = Workbench.open(small.folder, labels="sqlite://")
    for hit in small.search("token:/^ Paris$/", limit=64):
        assert (
            hit.score
            <= full.search("token:/^ Paris$/", limit=64).to_pandas().set_index("feature").score[hit.feature] + 1e-9
        )
    nothing = small.search('token:/^capital$/ topic:t2 promotes:" Paris" suppresses:" Paris"')
    assert nothing.partial
    assert nothing.total == 0
    assert small.search("token:/Paris/", limit=1)[0].why["token"].startswith("at least precision")
    assert not small.search("like:3").partial
    assert not small.search("neuron:1.3").partial


# ---- contrast ----


@pytest.fixture
def reviews(tmp_path):
    """Forty rows about cities and forty of code, with a label each; and the same as two files."""
    cities = [f"The capital of France is Paris, and Rome is number {i}." for i in range(40)]
    code = [f"def add(a, b):\n    return a + b + {i}" for i in range(40)]
    rows = [{"label": "city", "text": t} for t in cities] + [{"label": "code", "text": t} for t in code]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "cities.txt").write_text("\n".join(cities))
    (tmp_path / "code.jsonl").write_text("\n".join(json.dumps(t) for t in code))
    (tmp_path / "rows.csv").write_text("label,text\n" + "\n".join(f'{r["label"]},"{r["text"]}"' for r in rows))
    return tmp_path


def test_a_contrast_separates_two_sets_of_texts(wb, reviews):
    one = wb.search(f"contrast:{reviews}/rows.jsonl#label=city,code", limit=64)
    two = wb.search(f"contrast:{reviews}/cities.txt,{reviews}/code.jsonl", limit=64)
    three = wb.search(f"contrast:{reviews}/rows.csv#label=city,{reviews}/rows.csv#label=code", limit=64)
    assert one.total > 0
    assert [(h.feature, h.score) for h in one] == [(h.feature, h.score) for h in two]
    assert [(h.feature, h.score) for h in one] == [(h.feature, h.score) for h in three]
    assert re.match(r"larger on the (first|second) set: AUROC [\d.]+, effect", one[0].why["contrast"])
    best, cities, code = one[0].feature, texts(f"{reviews}/cities.txt"), texts(f"{reviews}/code.jsonl")
    a, b = ([wb.spectrum(t).largest(64)[best] for t in these] for these in (cities, code))
    wins = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert one[0].score == pytest.approx(max(wins, 1 - wins), abs=1e-9)


def test_sets_too_small_for_the_test_are_named_before_anything_is_computed(wb, reviews, capsys):
    lines = (reviews / "cities.txt").read_text().splitlines()
    (reviews / "few.txt").write_text("\n".join(lines[:5]))
    (reviews / "other.txt").write_text("\n".join(lines[5:10]))
    hits = wb.search(f"contrast:{reviews}/few.txt,{reviews}/other.txt")
    assert hits.notes[0].endswith(warning((5, 5), 64, 0.05))
    assert "5 and 5 texts no single feature can pass" in hits.notes[0]
    assert "give at least 7 texts in each set" in hits.notes[0]
    assert hits.notes[0] in capsys.readouterr().err
    assert not wb.search(f"contrast:{reviews}/rows.jsonl#label=city,code").notes


@pytest.mark.parametrize("sizes", [(5, 5), (11, 11), (12, 12), (8, 30)])
def test_the_warning_of_a_contrast_is_what_its_own_figures_give(sizes):
    """Features that separate two sets without exception: one alone, and as many as the warning says are needed."""
    for separating in (1, 2, 40):
        first, second = np.zeros((sizes[0], 9216), np.float32), np.zeros((sizes[1], 9216), np.float32)
        first[:, :separating] = 1
        passed = (contrast(first, second).q_F <= 0.05).any()
        said = warning(sizes, 9216, 0.05)
        needed = int(re.search(r"only where ([\d,]+) of them", said)[1].replace(",", "")) if said else 1
        assert passed == (separating >= needed)


def test_the_figures_of_a_contrast_are_the_textbooks():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(30, 5)).clip(0), draw.normal(size=(25, 5)).clip(0)
    a[:, 0] += 1
    a[:, 4] = b[:, 4] = 0
    found = contrast(a, b)
    for f in range(5):
        wins = np.mean([(x > y) + 0.5 * (x == y) for x in a[:, f] for y in b[:, f]])
        assert found.auroc_F[f] == pytest.approx(wins)
    pooled = np.sqrt((29 * a[:, 0].var(ddof=1) + 24 * b[:, 0].var(ddof=1)) / 53)
    assert found.effect_F[0] == pytest.approx((a[:, 0].mean() - b[:, 0].mean()) / pooled)
    assert found.p_F[4] == 1
    order = np.argsort(found.p_F)
    q = np.minimum.accumulate((found.p_F[order] * 5 / np.arange(1, 6))[::-1])[::-1]  # Benjamini and Hochberg 1995
    assert found.q_F[order] == pytest.approx(np.minimum(q, 1))


def test_sets_that_do_not_vary_have_no_effect_size():
    first, second = np.zeros((6, 3), np.float32), np.zeros((7, 3), np.float32)
    first[:, 0], first[:, 1], second[:, 1] = 2.1, 2.1, 2.1
    found = contrast(first, second)
    assert found.effect_F.tolist() == [np.inf, 0.0, 0.0]
    assert found.auroc_F.tolist() == [1.0, 0.5, 0.5]


def test_random_halves_of_one_text_are_seldom_told_apart(wb):
    """Under the null, some feature has q below .05 in about one draw of twenty."""
    draw = np.random.default_rng(1)
    largest = wb.largest([f"The capital of France is Paris. A cat sat in London. Part {i}." for i in range(120)], 64)
    false = 0
    for _ in range(60):
        order = draw.permutation(120)
        false += bool((contrast(largest[order[:60]], largest[order[60:]]).q_F <= 0.05).any())
    assert false <= 8  # 60 draws at .05: more than 8 once in 200


def test_bad_sets_of_texts_are_refused(wb, reviews):
    for query, message in (
        (f"contrast:{reviews}/rows.jsonl#label=city,{reviews}/cities.txt", "text\\(s\\) in common"),
        (f"contrast:{reviews}/rows.jsonl#name=city,code", "Its columns are label, text"),
        (f"contrast:{reviews}/rows.jsonl#label,x", "write #column=value"),
        (f"contrast:{reviews}/one.txt,{reviews}/code.jsonl", "needs at least 5 in each set"),
    ):
        (reviews / "one.txt").write_text("a single line")
        with pytest.raises(InterpError, match=message):
            wb.search(query)
    for name in ("old.csv", "old.jsonl"):
        (reviews / name).write_bytes("text\nun café\n".encode("latin-1"))
        with pytest.raises(InterpError, match="is not UTF-8"):
            wb.search(f"contrast:{reviews}/{name},{reviews}/code.jsonl")


def test_a_long_text_and_one_that_is_missing_are_read_from_the_same_column(tmp_path):
    (tmp_path / "a.csv").write_text("note,text\nx,\ny," + "long " * 50_000 + "\n")
    assert [len(text) for text in texts(f"{tmp_path}/a.csv")] == [5 * 50_000 - 1]
    (tmp_path / "b.jsonl").write_text('{"note": "a note", "text": null}\n{"note": "b", "text": "hello"}\n')
    assert texts(f"{tmp_path}/b.jsonl") == ["hello"]


# ---- what comes back ----


def test_hits_become_tables_and_escape_what_they_show(wb):
    wb.labels.set(2, '<script>alert(1)</script>, "x"')
    hits = wb.search("labelled:yes")
    assert list(hits.to_pandas()["feature"]) == [2]
    assert "<script>" not in hits._repr_html_()
    assert "&lt;script&gt;" in hits._repr_html_()
    import csv

    rows = list(csv.DictReader(hits.to_csv().splitlines()))
    assert rows[0]["label"] == '<script>alert(1)</script>, "x"'
    assert rows[0]["labelled why"] == "has a label"


def test_a_saved_search_runs_again_and_tells_what_changed(wb, tmp_path):
    wb.labels.set(3, "one", author="me")
    wb.save_search("mine", "author:me")
    kept, hits = wb.rerun_search("mine")
    assert kept.changes(hits) == {"came": [], "went": []}
    wb.labels.set(3, "")
    wb.labels.set(5, "two", author="me")
    kept, hits = wb.rerun_search("mine")
    assert kept.changes(hits) == {"came": [5], "went": [3]}
    assert "mine" in wb.saved_searches()
    assert wb.save_search("again", hits).query == "author:me"  # the answer at hand, not another search
    path = tmp_path / "shared.json"
    wb.save_search(str(path), "like:3")
    assert wb.rerun_search(str(path))[0].query == "like:3"
    with pytest.raises(InterpError, match="no saved search 'other'"):
        wb.rerun_search("other")
    places.write_json(path, {"name": "x"})
    with pytest.raises(InterpError, match="is no saved search"):
        wb.rerun_search(str(path))
    with pytest.raises(InterpError, match="cannot name a search"):
        wb.save_search("a*b", "like:3")


def test_neurons_are_searched_with_the_same_language(wb, text_folder):
    from interp.corpus import open_corpus

    wb.build_neuron_index(1, open_corpus(text_folder), 2_048)
    hits = wb.search_neurons(1, "token:/Paris|London/ density:..0.5", limit=5)
    assert hits
    assert all(0 <= hit.feature < 64 for hit in hits)
    assert not wb.search_neurons(1, "like:3 token:/a/").partial
    with pytest.raises(InterpError, match="no index of the neurons of layer 0"):
        wb.search_neurons(0, "")
    page = wb.neuron(1, 3)
    assert [f.feature for f, _ in page.features] == [hit.feature for hit in wb.search("neuron:1.3", limit=10)]
    fires = wb.neuron_index(1).features["fires"]
    assert (page.positive.fires, page.negative.fires) == (fires[6], fires[7])
    assert all(e.value == max(e.values) for e in page.positive.examples[:1])
    assert "neuron 1.3" in page._repr_html_()
    example = page.positive.examples[0]
    spectrum = wb.spectrum("".join(example.tokens))  # the same window: its tokens are whole words here
    feature, share, _ = page.untangled[example.position][0]
    fired = spectrum.matrix([feature])[0][example.peak + 1]
    assert share == pytest.approx(fired / wb.index.features["max"].iat[feature], rel=0.02)
    with pytest.raises(InterpError, match="its neurons are 0 to 31"):
        wb.neuron(1, 32)
    with pytest.raises(InterpError, match="no neurons of layer 7"):
        wb.neurons(7)


# ---- labels ----


def test_every_version_of_a_label_is_kept(tmp_path):
    book = LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/l.sqlite")
    book.set(3, "cats", author="a")
    book.set(3, "dogs", author="b", note="looked again", status="confirmed")
    assert [label.text for label in book.history(3)] == ["cats", "dogs"]
    assert book.get(3).author == "b"
    book.set(3, "")
    assert book.get(3) is None
    assert book.all() == {}
    assert len(book.history(3)) == 3
    assert LabelBook("other", 10, url=f"sqlite:///{tmp_path}/l.sqlite").history(3) == []


def test_labels_travel_as_json_lines(tmp_path):
    book = LabelBook("sha", 10, url="sqlite://")
    book.set(3, "chats «noirs»", author="a")
    assert book.export(tmp_path / "labels.jsonl") == 1
    assert json.loads((tmp_path / "labels.jsonl").read_text(encoding="utf-8"))["text"] == "chats «noirs»"
    again = LabelBook("sha", 10, url="sqlite://", shipped=tmp_path / "labels.jsonl")
    assert again.get(3).text == "chats «noirs»"
    (tmp_path / "labels.jsonl").write_text('{"feature": 1}\n')
    with pytest.raises(InterpError, match="line 1: not a label"):
        LabelBook("sha", 10, url="sqlite://", shipped=tmp_path / "labels.jsonl")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.set(10, "x"), "no feature 10"),
        (lambda b: b.set(1, "x", status="sure"), "no label status 'sure'"),
        (lambda b: b.set(1, "x" * 3000), "at most 2,000 characters"),
    ],
)
def test_bad_labels_are_refused(call, message):
    with pytest.raises(InterpError, match=message):
        call(LabelBook("sha", 10, url="sqlite://"))
