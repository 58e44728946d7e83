"""Labels tried by editing: worlds in which it is known what a feature fires on, and what the label gets wrong of it."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from interp.codes import encode
from interp.evidence import edits as trying
from interp.evidence.claimed import claim_in, read_claims
from interp.evidence.edited import PART as OF_EVIDENCE
from interp.evidence.edited import edit_test, show_failure, summarise_edits
from interp.evidence.edits import PART, EditsConfig, try_edits
from interp.evidence.excerpts import Stock, read_again
from interp.evidence.falsified import COLUMNS, FILE, read_edits
from interp.evidence.part import about_part
from interp.evidence.rewriting import KINDS, Rewritten, Window, other_number, rewrite, shorter, shuffled
from interp.evidence.swaps import Swaps
from interp.labels.automatic import level_said
from interp.labels.label import Label as Labelled
from interp.labels.testing import Label
from interp.mask import Mask
from interp.models import open_model
from interp.predicates import Text, Vocabulary, read_claim
from interp.predicates.wordnet import wordnet
from interp.sae import SAE
from interp.types import InterpError
from interp.workbench.evidencing import APART, MAKERS
from interp.workbench.inspecting import edits_of, failed_texts
from tests.families import WIDTH, WORDS, save, sentences
from tests.home import own_home
from tests.test_wordnet import real

torch.set_num_threads(1)

EMBEDDED = "blocks.0.hook_resid_pre"
"""Where a Llama has nothing but the token, so that a feature answers to tokens and to nothing else."""
ALIKE = ["river", "city", "house", "bread", "music", "paper", "winter", "train", "north"]
"""Words whose embeddings are made to lie close together."""
BLOCK, DOCUMENTS, FEATURES = 64, 60, 8
ALL, ONE = 0, 1
"""A feature that fires on all words that are alike, and one that fires on the first of them."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    model = open_model(str(save("llama", tmp_path_factory.mktemp("models") / "llama")), dtype="float32")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        table = model.module.get_input_embeddings().weight
        table.copy_(torch.nn.functional.normalize(torch.randn(table.shape, generator=draw), dim=1))
        base = table[model.tokenize(" river")[0]].clone()
        for word in ALIKE:
            token = model.tokenize(f" {word}")
            assert len(token) == 1
            away = torch.nn.functional.normalize(torch.randn(WIDTH, generator=draw), dim=0)
            table[token[0]] = torch.nn.functional.normalize(base + 0.5 * away, dim=0)
    return model


@pytest.fixture(scope="module")
def stock(llama) -> Stock:
    return stock_of(llama, planted(llama))


def planted(model, hook=EMBEDDED) -> SAE:
    """Feature ALL reads what is common to the words that are alike, ONE what only the first of them has, the rest anything."""
    draw = torch.Generator().manual_seed(3)
    W_enc, threshold = torch.randn(WIDTH, FEATURES, generator=draw), torch.full((FEATURES,), 0.5)
    table = model.text.embedding
    alike = torch.stack([table[model.tokenize(f" {word}")[0]] for word in ALIKE])
    W_enc[:, ALL] = torch.linalg.pinv(alike) @ torch.ones(len(ALIKE))
    W_enc[:, ONE] = torch.linalg.pinv(alike) @ torch.eye(len(ALIKE))[0]
    threshold[[ALL, ONE]] = 0.99
    return SAE(
        W_enc=W_enc, b_enc=torch.zeros(FEATURES), W_dec=W_enc.T.clone(), b_dec=torch.zeros(WIDTH),
        threshold=threshold, reads=hook, name="planted",
    )  # fmt: skip


def stock_of(model, sae) -> Stock:
    """Documents of a block each, every other one a testing document, and where the SAE's features fire in them."""
    texts = [" " + " ".join(sentences(3, seed=number)) for number in range(DOCUMENTS)]
    rows = [model.prompt(text)[:BLOCK] for text in texts]
    assert {len(row) for row in rows} == {BLOCK}
    token_N, document_N = np.concatenate(rows), np.repeat(np.arange(DOCUMENTS), BLOCK)
    split = ["labels" if number % 2 else "train" for number in range(DOCUMENTS)]
    columns = {name: [""] * DOCUMENTS for name in ("source", "topic", "title")}
    inside_N = np.arange(len(token_N)) % BLOCK
    text = Text(token_N, document_N, inside_N > 0, BLOCK, model.separator, Vocabulary(model.vocabulary), split, columns)
    codes = encode(model, sae, rows, Mask({}))
    fires = {f: (codes.position_A[codes.feature_A == f], codes.value_A[codes.feature_A == f]) for f in range(sae.d_sae)}
    testing_N = np.array([one == "labels" for one in split])[document_N] & (inside_N > 0) & (inside_N < BLOCK - 1)
    counts = np.bincount(token_N, minlength=len(model.vocabulary))
    return Stock(text, testing_N, fires.__getitem__, counts, model.vocabulary_bytes, "planted")


def words(some) -> str:
    return f"token:/^ ?({'|'.join(some)})$/"


def tried(model, stock, folder, claims, config=None, sae=None, **options):
    """By feature, what edits say of these claims."""
    labels = [Label(feature=feature, claim=read_claim(claim)) for feature, claim in claims.items()]
    sae = sae or planted(model)
    table = try_edits(model, sae, Mask({}), stock, labels, folder, sae_sha256="sha", config=config, **options)
    return {row["feature"]: edit_test(row) for row in table.to_pylist()}


# ---- what is found ----


def test_a_claim_that_is_right_fails_in_no_edit(llama, stock, tmp_path):
    found = tried(llama, stock, tmp_path, {ALL: words(ALIKE), ONE: words(["river"])})
    for one in found.values():
        assert (one.control_tried, one.control_failed, one.texts) == (8, 0, 8)
        assert (one.failed, one.shorter_tried, one.shorter_failed) == (0, 8, 0)
        assert one.excess == one.excess_low == one.excess_high == 0
        assert one.tried == sum(count for count, _ in one.kinds.values()) >= 50
        assert one.kept
        assert one.broken
        assert one.share == one.share_low == 0 < one.share_high < 0.4  # eight documents do not tell more
        assert one.said()[0].shown
        assert one.said()[0].text.startswith(f"What it claims is right in all of {one.tried} edits of 8 texts.")
        for kind in ("near", "far", "case", "negation", "shuffled"):
            assert one.kinds[kind][0] == 8, kind


def test_a_claim_of_one_token_of_several_is_found_by_swaps_for_near_ones(llama, stock, tmp_path):
    one = tried(llama, stock, tmp_path, {ALL: words(["river"])}, EditsConfig(texts=40))[ALL]
    # At other words it is wrong before any edit, and these texts are not edited.
    assert one.control_failed > 0
    assert one.control_tried - one.control_failed == one.texts > 0
    assert one.kinds["near"] == (one.texts, one.texts)
    assert one.kinds["far"][1] == one.kinds["shuffled"][1] == one.kinds["cut 2"][1] == 0
    assert one.broken_failed == one.failed == one.texts
    assert one.kept_failed == one.shorter_failed == 0
    assert one.excess > 0
    first = one.failures[0]
    assert (first.kind, first.was, first.holds, first.offset, first.removed) == ("near", " river", False, 0, 1)
    assert first.became.strip() in ALIKE[1:]
    assert first.tokens == llama.tokenize(first.became)
    assert stock.text.vocabulary.texts[stock.text.token_N[first.position]] == " river"
    assert first.before > 0.99 < first.after
    said = one.said()[0]
    assert not said.shown
    assert said.text.startswith(f"Fails in {one.failed} of {one.tried} edits of {one.texts} texts (")
    assert f"still fires when ‘·river’ is ‘·{first.became.strip()}’" in said.text
    assert (
        f"Before any edit it failed in {one.control_failed} of {one.control_tried} texts, read by itself: in "
        in said.text
    )


def test_a_claim_of_more_tokens_than_it_fires_on_is_silent_where_it_should_fire(llama, stock, tmp_path):
    one = tried(llama, stock, tmp_path, {ONE: words(ALIKE)})[ONE]
    assert one.control_failed == 0
    assert one.kinds["near"] == (8, 8)
    assert (one.kept_failed, one.broken_failed) == (8, 0)
    assert one.failures[0].sentence.startswith("is silent when ‘·river’ is ‘·")
    assert one.failures[0].after == 0


def test_a_claim_of_a_context_that_does_not_matter_is_found_by_edits_of_it(llama, stock, tmp_path):
    before = "before:/^ ?(the|a|blue|green|over|under|near|seven)$/"
    one = tried(llama, stock, tmp_path, {ONE: f"{words(['river'])} {before}"}, EditsConfig(texts=40))[ONE]
    assert 0 < one.texts < one.control_tried
    assert one.kinds["negation"] == (one.texts, one.texts)
    assert one.kinds["near"][1] == one.kinds["far"][1] == one.kinds["case"][1] == one.shorter_failed == 0
    assert 0 < one.kinds["shuffled"][1] < one.kinds["shuffled"][0]
    negation = next(failure for failure in one.failures if failure.kind == "negation")
    assert negation.sentence == "still fires when ‘not’ is put before it"
    # Of as many texts as there are, one of each kind comes before a second of any.
    assert {failure.kind for failure in one.failures[:2]} == {"negation", "shuffled"}


def test_activations_are_those_of_the_texts_alone(llama, tmp_path):
    """At a deeper hook point, where they hang on the context: as `encode` gives them, each text by itself."""
    hook = "blocks.1.hook_resid_post"
    sae = planted(llama, hook)
    sae.threshold.fill_(0.5)
    stock, seen = stock_of(llama, sae), []
    judge = trying.try_labels

    def spy(run, labels):
        from interp.evidence import trials

        inner = trials._activations

        def watched(run, excerpts, feature_I):
            value_I = inner(run, excerpts, feature_I)
            seen.extend(zip(excerpts, feature_I.tolist(), value_I.tolist(), strict=True))
            return value_I

        trials._activations = watched
        try:
            return judge(run, labels)
        finally:
            trials._activations = inner

    trying.try_labels = spy
    try:
        found = tried(llama, stock, tmp_path, {4: "token:/./", 5: "token:/river/"}, EditsConfig(texts=5), sae)
    finally:
        trying.try_labels = judge
    assert sum(one.tried for one in found.values()) > 20
    assert len(seen) > 60
    for excerpt, feature, value in seen:
        codes = encode(llama, sae, [excerpt.tokens], Mask({}))
        assert value == pytest.approx(float(codes.matrix[excerpt.at, feature]), rel=1e-4, abs=1e-5)
    assert {value > 0 for _, _, value in seen} == {True, False}


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mamba", "rwkv", "xlstm", "bloom"])
def test_models_of_other_families_are_tried(family, tmp_path):
    model = open_model(str(save(family, tmp_path / family)), dtype="float32")
    hook = next(name for name in model.hook_names() if name.endswith((".1.hook_resid_post", ".1.hook_out")))
    draw = torch.Generator().manual_seed(3)
    sae = SAE(
        W_enc=torch.randn(WIDTH, FEATURES, generator=draw), b_enc=torch.zeros(FEATURES),
        W_dec=torch.randn(FEATURES, WIDTH, generator=draw), b_dec=torch.zeros(WIDTH), k=4, reads=hook, name="planted",
    )  # fmt: skip
    stock = stock_of(model, sae)
    found = tried(model, stock, tmp_path, {2: "token:/./"}, EditsConfig(texts=3), sae)[2]
    assert found.control_tried == 3
    assert found.tried == found.kept > 0  # it claims everything, so that no edit breaks it
    assert found.broken == 0


def test_failures_are_shown_from_the_text_and_the_edit_alone(llama, stock, tmp_path):
    before, config = "before:/^ ?(the|a|blue|green|over|under|near|seven)$/", EditsConfig(texts=40)
    one = tried(llama, stock, tmp_path, {ONE: f"{words(['river'])} {before}"}, config)[ONE]
    special = frozenset({llama.separator})
    kinds = {failure.kind: show_failure(failure, stock, config, special) for failure in reversed(one.failures)}
    assert {"negation", "shuffled"} <= set(kinds)
    for kind, made in kinds.items():
        assert made.untouched[1] == made.edited[1] == " river", kind
        assert made.untouched[2] == made.edited[2]
        assert made.before == pytest.approx(made.after)  # it answers to the token alone
    assert kinds["negation"].edited[0] == kinds["negation"].untouched[0] + " not"
    head, was = kinds["shuffled"].edited[0], kinds["shuffled"].untouched[0]
    assert sorted(head.split()) == sorted(was.split())
    assert head != was
    near = tried(llama, stock, tmp_path, {ONE: words(ALIKE)}, config)[ONE].failures[0]
    made = show_failure(near, stock, config, special)
    assert (made.untouched[1], made.edited[1]) == (" river", near.became)
    assert made.untouched[0] == made.edited[0]
    with pytest.raises(InterpError, match=r"the text at position 9,999 is not on this machine, or not the one"):
        show_failure(replace(near, position=9_999), stock, config, special)
    cut = show_failure(replace(near, kind="cut 2", tokens=[]), stock, config, special)
    assert cut.untouched[0].endswith(cut.edited[0])
    assert len(cut.edited[0].split()) <= 2


# ---- kept, and gone on with ----


def test_what_was_tried_is_kept_and_a_killed_call_goes_on(llama, stock, tmp_path, monkeypatch):
    claims = dict.fromkeys(range(FEATURES), words(["river"]))
    monkeypatch.setattr(trying, "PART", 2)
    judge, calls = trying.try_labels, []

    def counted(run, labels):
        calls.append([label.feature for label in labels])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judge(run, labels)

    monkeypatch.setattr(trying, "try_labels", counted)
    config = EditsConfig(texts=2)
    with pytest.raises(KeyboardInterrupt):
        tried(llama, stock, tmp_path, claims, config)
    assert not (tmp_path / FILE).exists()
    tried(llama, stock, tmp_path, claims, config)
    assert calls == [[0, 1], [2, 3], [4, 5], [4, 5], [6, 7]]
    assert not (tmp_path / ".edits").exists()
    alone = try_edits(
        llama, planted(llama), Mask({}), stock, [Label(feature=f, claim=read_claim(c)) for f, c in claims.items()],
        tmp_path / "alone", sae_sha256="sha", config=config,
    )  # fmt: skip
    whole = read_edits(tmp_path / FILE)
    assert whole.equals(alone)
    assert whole.column_names == list(COLUMNS)
    assert all(whole.schema.field(name).metadata[b"about"].decode() == about for name, (_, about) in COLUMNS.items())
    about = about_part(whole)
    assert (about["sae_sha256"], about["split"], about["seed"]) == ("sha", "labels", 0)
    assert about["model_sha256"] == llama.fingerprint()
    # Only a label that says something else is tried again, and others stay.
    done = len(calls)
    tried(llama, stock, tmp_path, {3: words(["city"]), 5: claims[5]}, config)
    assert calls[done:] == [[3]]
    assert read_edits(tmp_path / FILE)["claim"].to_pylist().count(words(["river"])) == FEATURES - 1
    tried(llama, stock, tmp_path, {5: claims[5]}, replace(config, restart=True))
    assert calls[done + 1 :] == [[5]]
    # Of another seed, nothing that lies there is taken.
    tried(llama, stock, tmp_path, {5: claims[5]}, replace(config, seed=1))
    assert read_edits(tmp_path / FILE)["feature"].to_pylist() == [5]


def test_a_part_that_was_cut_short_is_made_again(llama, stock, tmp_path, monkeypatch):
    monkeypatch.setattr(trying, "PART", 1)
    judge = trying.try_labels

    def once(run, labels):
        if labels[0].feature == ALL:
            return judge(run, labels)
        raise KeyboardInterrupt

    monkeypatch.setattr(trying, "try_labels", once)
    claims, config = {ALL: words(ALIKE), ONE: words(["river"])}, EditsConfig(texts=1)
    with pytest.raises(KeyboardInterrupt):
        tried(llama, stock, tmp_path, claims, config)
    (part,) = (tmp_path / ".edits").glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    monkeypatch.setattr(trying, "try_labels", judge)
    assert set(tried(llama, stock, tmp_path, claims, config)) == {ALL, ONE}


def test_the_summary_and_the_card_tell_failures_first(llama, stock, tmp_path):
    labels = [
        Label(feature=ALL, claim=read_claim(words(["river"]))),
        Label(feature=ONE, claim=read_claim(words(["river"]))),
    ]
    config = EditsConfig(texts=40)
    table = try_edits(llama, planted(llama), Mask({}), stock, labels, tmp_path, sae_sha256="sha", config=config)
    assert "Of 2 labels tried by editing 1 fail in some edit." in summarise_edits(table)
    assert summarise_edits(table.slice(0, 0)) == "No label was tried by editing."
    assert OF_EVIDENCE.read(tmp_path / FILE).equals(table)
    joined = {"feature": ALL} | {
        f"edit_{name}": value for name, value in table.to_pylist()[0].items() if name != "feature"
    }
    said = OF_EVIDENCE.record(joined).said()
    assert said[0].text.startswith("Fails in ")
    assert not said[0].shown
    other = OF_EVIDENCE.record(joined | {"label_claim": "token:/lake/"}).said()
    assert "of another claim" in other[0].text
    silent = OF_EVIDENCE.record(dict.fromkeys(joined) | {"feature": 3}).said()
    assert silent[0].text.startswith("Not tried by editing")


# ---- edits ----


def window(text: str, peak: str, after: str = "") -> Window:
    pieces = [f" {word}".encode() for word in text.split(" ")]
    return Window(before=[pieces[0][1:], *pieces[1:]], peak=peak.encode(), after=[after.encode()])


def texts(some: Window, *, english=True, nouns=None) -> dict[str, tuple[str, str]]:
    """By kind, the edited text up to its peak's end, and what follows."""
    made = rewrite(some, np.random.default_rng(0), english=english, nouns=nouns)
    return {kind: (one.text[: one.end].decode(), one.text[one.end :].decode()) for kind, one in made}


NINE = window("one two three four five six seven they saw many", " rivers", " in it")


def test_each_edit_changes_what_it_says_and_nothing_else():
    nine, made = NINE, texts(NINE)
    assert "number" not in made  # without WordNet
    assert made["cut 8"] == (" three four five six seven they saw many rivers", " in it")
    assert made["cut 2"] == (" saw many rivers", " in it")
    assert made["case"] == ("one two three four five six seven they saw many Rivers", " in it")
    assert made["negation"] == ("one two three four five six seven they saw many not rivers", " in it")
    head, after = made["shuffled"]
    assert after == " in it"
    assert head.endswith(" rivers")
    assert sorted(head.split()) == sorted(
        ["one", "two", "three", "four", "five", "six", "seven", "they", "saw", "many", "rivers"]
    )
    assert head != made["case"][0].lower()
    assert shorter(nine).text == b" three four five six seven they saw many rivers in it"
    assert nine.swapped(b" lakes").text == b"one two three four five six seven they saw many lakes in it"
    assert set(texts(nine, english=False)) == {"cut 8", "cut 2", "shuffled", "case"}


@pytest.mark.parametrize(("before", "peak", "after", "edited"), [
    ("they did not see the", " river", "", "they did see the river"),
    ("I would never see the", " river", "", "I would see the river"),
    ("she can't see", " rivers", "", "she can see rivers"),
    ("he won't see", " rivers", "", "he will see rivers"),
    ("they didn’t see", " rivers", "", "they did see rivers"),
    ("it is a cannot", " river", "", "it is a can river"),
    ("knots and nevertheless", " rivers", "", "knots and nevertheless not rivers"),
    ("in the under", "ground", "", "in the not underground"),
])  # fmt: skip
def test_a_negation_is_taken_out_or_put_in(before, peak, after, edited):
    assert texts(window(before, peak, after))["negation"][0] == edited


def test_pieces_of_words_and_signs_are_edited_as_far_as_there_is_a_word():
    made = texts(Window(before=[b"the ", b"walk"], peak=b"ing", after=[b" man"]))
    assert made["case"] == ("the Walking", " man")
    assert "shuffled" not in made
    inner = texts(Window(before=[b"many ", b"ri"], peak=b"v", after=[b"ers run"]))
    assert inner["case"] == ("many Riv", "ers run")
    assert set(texts(window("one two three", ","))) == {"cut 2", "shuffled"}
    assert texts(Window(before=[], peak=b"river", after=[])) == {"case": ("River", ""), "negation": ("not river", "")}
    assert texts(Window(before=[], peak=b",", after=[])) == {}
    assert shorter(Window(before=[], peak=b"x", after=[])) is None
    same = texts(Window(before=[b"a", b" a", b" a", b" a"], peak=b" b", after=[]))
    assert "shuffled" not in same
    assert shuffled("a b", np.random.default_rng(0)) is None


def test_bytes_that_are_no_character_leave_only_what_needs_no_words():
    half = "é".encode()
    made = list(rewrite(Window(before=[b"a", b" b", b" c"], peak=half[:1], after=[half[1:]]), np.random.default_rng(0), english=True, nouns=None))  # fmt: skip
    assert [kind for kind, _ in made] == ["cut 2"]
    assert made[0][1].text == b" b c" + half
    assert made[0][1].end == 5
    cut = Window(before=[half[1:], b" b", b" c", b" d"], peak=b" e", after=[]).untouched
    assert cut.text == b" b c d e"  # a text does not begin inside a character


@real
def test_the_number_of_a_noun_is_changed_where_the_peak_ends_its_word():
    made = texts(NINE, nouns=wordnet())
    assert made["number"] == ("one two three four five six seven they saw many river", " in it")
    inner = texts(Window(before=[b"many ", b"ri"], peak=b"v", after=[b"ers run"]), nouns=wordnet())
    assert "number" not in inner  # what follows the peak would be another word's end
    assert set(texts(window("one two three", ","), nouns=wordnet())) == {"cut 2", "shuffled"}


@real
def test_numbers_of_nouns():
    known = {
        "river": "rivers",
        "city": "cities",
        "glass": "glasses",
        "child": "children",
        "Lake": "Lakes",
        "BOX": "BOXES",
    }
    for one, many in known.items():
        assert other_number(one, wordnet()) == many
        assert other_number(many, wordnet()) == one
    assert [other_number(word, wordnet()) for word in ("the", "with", "zzqx", "is")] == [""] * 4


def test_swaps_are_of_the_same_form_and_another_word(llama, stock):
    swaps = Swaps(stock.text.vocabulary, stock.count_V, llama.text.embedding)
    token, texts = llama.tokenize(" river")[0], stock.text.vocabulary.texts
    near = {texts[other].strip() for other in swaps.near(token, np.random.default_rng(0))}
    far = {texts[other].strip() for other in swaps.far(token, np.random.default_rng(0))}
    assert near == set(ALIKE) - {"river"}
    assert far
    assert far <= set(WORDS) - set(ALIKE)
    assert swaps.near(token, np.random.default_rng(1)) == swaps.near(token, np.random.default_rng(1))
    unread = Swaps(stock.text.vocabulary, stock.count_V, None)
    assert unread.near(token, np.random.default_rng(0)) == []
    assert token not in unread.far(token, np.random.default_rng(0))
    some = Vocabulary([" lake", " lakes", " Lake", "lake", " pond", " ponds", " Ö", " \\xc3", "7", "42", " sea"])
    plain = Swaps(some, np.array([9] * 10 + [1]), torch.randn(11, 4))
    assert {some.texts[i] for i in plain.near(0, np.random.default_rng(0))} == {" pond", " ponds"}
    assert {some.texts[i] for i in plain.near(8, np.random.default_rng(0))} == {"42"}
    assert plain.near(7, np.random.default_rng(0)) == plain.far(7, np.random.default_rng(0)) == []


# ---- texts ----


def test_a_text_is_read_again_by_the_tokenizer_and_its_peak_found(tiny):
    bytes_V = tiny.vocabulary_bytes
    whole = "The café of <|endoftext|> 🙂 London"
    end = len("The café of <|endoftext|> 🙂".encode())
    found = read_again(Rewritten(text=whole.encode(), end=end), tiny, bytes_V, tiny.separator)
    assert found.tokens[0] == tiny.separator
    assert list(found.tokens[1:]) == tiny.tokenize(whole)
    assert found.tokens.count(tiny.separator) == 1  # what spells a special token is text
    assert b"".join(bytes_V[token] for token in found.tokens[1 : found.at + 1]) == whole.encode()[:end]
    assert read_again(Rewritten(text=b"", end=0), tiny, bytes_V, tiny.separator) is None
    assert read_again(Rewritten(text=b"\xc3", end=1), tiny, bytes_V, tiny.separator) is None
    folded = [raw.lower() for raw in bytes_V]  # tokens that do not spell the text
    assert read_again(Rewritten(text=b"The mat", end=7), tiny, folded, tiny.separator) is None


def test_a_stretch_ends_at_its_document_its_block_and_special_tokens(llama, stock):
    whole = stock.window(BLOCK + 20, 32, 16, frozenset({llama.separator}))
    assert (len(whole.before), len(whole.after)) == (19, 16)  # the separator is none of it
    assert b"".join([*whole.before, whole.peak, *whole.after]).decode() == llama.decode(stock.text.token_N[BLOCK + 1 : BLOCK + 37].tolist())  # fmt: skip
    last = stock.window(2 * BLOCK - 3, 4, 16, frozenset({llama.separator}))
    assert (len(last.before), len(last.after)) == (4, 2)
    special = int(stock.text.token_N[BLOCK + 18])
    assert len(stock.window(BLOCK + 20, 32, 16, frozenset({special})).before) <= 1
    assert len(stock.window(0, 32, 0, frozenset()).before) == 0


# ---- labels of a book ----


def label(predicate, note="", text="x", feature=3):
    return Labelled(feature=feature, text=text, note=note, predicate=predicate)


def test_claims_and_levels_are_read_out_of_labels():
    held = {
        0: label("at:(token:/^ ?river$/ not language:fr)", "confirmed: above 3.21, F1 .5"),
        1: label("token:/^ ?river$/", "proposed: at all its firings; too few"),
        2: label("token:/^ ?river$/", "looks like it"),
        3: label("density:1e-5.."),
        4: label("token:/(/"),
        5: label(""),
        6: label("token:/x/", text=""),
        8: label("at:(token:/x/) density:1e-5.."),
        9: label("at:(token:/x/"),
    }
    levels = np.array([9.0, 9.0, 2.5, 0, 0, 0, 0, -np.inf, 0, 0])
    read = read_claims(held, range(10), levels)
    assert [(one.feature, one.level) for one in read.labels] == [(0, 3.21), (1, 0.0), (2, 2.5)]
    assert str(read.labels[0].claim) == "token:/^ ?river$/ not language:fr"
    assert set(read.without) == {3, 4, 5, 6, 7, 8, 9}
    assert read.without[8] == "its predicate asks more than what holds at one position, at:(…)"
    assert "did you mean" not in read.without[9]
    exact = {
        0: Label(feature=0, claim=read.labels[0].claim, level=3.2134),
        2: Label(feature=2, claim=read_claim("token:/b/"), level=2.5),
    }
    assert [one.level for one in read_claims(held, [0, 2], levels, exact).labels] == [3.2134, 2.5]
    assert read.without[5] == "its label claims nothing that can be tried"
    assert read.without[6] == read.without[7] == "it has no label"
    assert str(claim_in("token:/a/ or is:digit")) == "token:/a/ or is:digit"
    assert level_said("refuted: above 1e+02, F1 .1") == 100
    assert level_said("above 3, or so") is None


def test_the_labels_of_an_open_sae_are_tried(wb, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    index = wb.index
    common = [int(f) for f in np.argsort(-index.features["density"].to_numpy())[:3]]
    with pytest.raises(
        InterpError, match=rf"feature {common[0]}: it has no label; `interp autolabel .*` writes labels"
    ):
        wb.edit_tests([common[0]])
    with pytest.raises(InterpError, match=r"no feature has a label; `interp autolabel"):
        wb.edit_tests()
    wb.labels.set(common[0], "anything", predicate="at:(token:/./)", note="proposed: at all its firings, by hand")
    wb.labels.set(common[1], "anything", predicate="token:/./ language:fr")
    wb.labels.set(common[2], "no claim")
    found = wb.edit_tests()
    assert set(found.tests) == set(common[:2]), found.without
    assert found.without == {common[2]: "its label claims nothing that can be tried"}
    one = found.tests[common[0]]
    assert one.texts > 0
    assert one.tried > 0
    assert "tried by editing" in found.summary
    french = found.tests[common[1]]
    assert french.control_failed == french.control_tried > 0  # no document is French
    assert french.control_silent < french.control_tried
    assert french.said()[0].text.startswith("Not tried by editing: Before any edit it failed in")
    assert wb.edit_tests([common[0]]).tests[common[0]] == one
    # The evidence takes it up, and makes it only when it is named.
    assert wb.build_evidence(["edits"]).took.keys() == {"edits"}
    told = wb.evidence[common[0]]
    assert told.row["edit_tried"] == one.tried
    assert one.said()[0].text in told.sentences()
    assert "edits" in APART <= MAKERS.keys()
    assert "Not tried by editing; `interp evidence" in " ".join(wb.evidence[common[2]].sentences())
    with pytest.raises(InterpError, match=r"no feature 64 in .*, which has features 0 to 63"):
        wb.edit_tests([64])


# ---- what is not to be had ----


def test_what_does_not_belong_together_is_refused_in_a_sentence(llama, stock, tmp_path):
    def refused(match, *, model=llama, claims=None, sae=None, config=None):
        with pytest.raises(InterpError, match=match):
            tried(model, stock, tmp_path, claims or {ALL: words(["river"])}, config, sae)

    plain = planted(llama)
    refused(
        r"llama has no tokenizer, so no text of it can be edited; open it",
        model=replace(llama, tokenizer=None),
        sae=plain,
    )
    refused(r"no feature 9 in planted, which has features 0 to 7", claims={9: "token:/x/"})
    wide = SAE(W_enc=torch.zeros(16, 3), b_enc=torch.zeros(3), W_dec=torch.zeros(3, 16), b_dec=torch.zeros(16), k=1, reads=EMBEDDED)  # fmt: skip
    refused(rf"{EMBEDDED} of llama has width {WIDTH} and sae 16: it was made for another model", sae=wide)
    refused(r"about: reads contexts by a sentence encoder, which is not at hand here", claims={ALL: 'about:"water"'})
    twice = [Label(feature=1, claim=read_claim("token:/x/"))] * 2
    with pytest.raises(InterpError, match=r"feature 1 has several labels here; try one at a time"):
        try_edits(llama, planted(llama), Mask({}), stock, twice, tmp_path, sae_sha256="sha")
    for name in ("texts", "before", "at_once"):
        with pytest.raises(InterpError, match=rf"{name} is 0; it must be 1 or more"):
            EditsConfig(**{name: 0})
    with pytest.raises(InterpError, match=r"after is -1; it must be 0 or more"):
        EditsConfig(after=-1)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_feature_that_fires_nowhere_above_its_level_has_a_row_that_says_so(llama, stock, tmp_path):
    labels = [Label(feature=ALL, claim=read_claim(words(ALIKE)), level=1e6)]
    table = try_edits(llama, planted(llama), Mask({}), stock, labels, tmp_path, sae_sha256="sha")
    row = table.to_pylist()[0]
    assert row["control_tried"] == row["texts"] == row["tried"] == row["runs"] == 0
    assert row["share"] is row["share_low"] is row["excess"] is None
    assert row["examples"] == []
    assert edit_test(row).said()[0].text.startswith("Not tried by editing: it fires nowhere above its level")


def test_a_table_of_another_kind_is_named(llama, stock, tmp_path):
    with pytest.raises(InterpError, match=r"there is no file .*edits\.parquet"):
        read_edits(tmp_path / FILE)
    labels = [Label(feature=ALL, claim=read_claim(words(ALIKE)))]
    table = try_edits(
        llama, planted(llama), Mask({}), stock, labels, tmp_path, sae_sha256="sha", config=EditsConfig(texts=1)
    )
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "a.parquet")
    with pytest.raises(InterpError, match=r"does not say what it was made of"):
        read_edits(tmp_path / "a.parquet")
    pq.write_table(table.drop_columns(["tried"]), tmp_path / "b.parquet")
    with pytest.raises(InterpError, match=r"has no column tried as this program writes it"):
        read_edits(tmp_path / "b.parquet")
    assert PART >= 1
    assert set(KINDS) == {"near", "far", "case", "number", "negation", "cut 8", "cut 2", "shuffled"}


def test_with_a_limit_labels_are_drawn_and_a_longer_run_holds_a_shorter_one(wb, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    index = wb.index
    for feature in (int(f) for f in np.argsort(-index.features["density"].to_numpy())[:6]):
        wb.labels.set(feature, "anything", predicate="token:/./", note="proposed: at all its firings, by hand")

    def tried(limit):
        wb.build_evidence(["edits"], limit=limit)
        return {number for number in range(wb.sae.d_sae) if wb.evidence[number].row["edit_tried"] is not None}

    two = tried(2)
    assert len(two) == 2
    assert two < tried(4)


def test_texts_of_edits_that_came_with_the_sae_are_not_looked_for_in_another_index(embedded, monkeypatch, tmp_path):
    """The embedded SAE's labels were tried on its full index; the one that ships keeps examples only."""
    own_home(monkeypatch, tmp_path)
    feature = next(f for f, one in enumerate(embedded.evidence.column("edit_failed").tolist()) if one and one > 0)
    page = embedded.feature(feature)
    edits = edits_of(embedded, page)
    assert edits is not None
    assert edits.failures
    assert failed_texts(embedded, page, edits) == []
    with pytest.raises(InterpError, match="the texts that were edited are not those of the index in"):
        embedded.show_edit(edits.failures[0])
