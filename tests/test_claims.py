"""Claims about positions: what they say, where they hold, each against a slow, obvious twin."""

import re

import numpy as np
import pytest

from interp.grammar import And, Not, Or, Term
from interp.predicates import Claim, Predicate, Text, Vocabulary, read_claim
from interp.predicates.claim import HOLDS, known_keys
from interp.predicates.keys import CLAIM, HELP
from interp.predicates.syntax import BIT, KINDS
from interp.predicates.written import write
from interp.search import parse
from interp.types import InterpError

PYTHON = "def area(r):\n    # half of it\n    return math.pi * r ** 2  # ‘π’\n\n\nclass Box(Base):\n    name = f'x' + load(\"é\", r)\n"
DOCUMENTS = [
    ("The river was wide. It ran fast.\n“Run,” said he.", "novels", "rivers", "a"),
    ("La rivière est large et le lac est dans la vallée des bois qui est pour le roi.", "wiki-fr", "lacs", "b"),
    (PYTHON, "code-python", "Python", "pkg/shapes.py:12"),
    ("Rivers and lakes: the river of the lake was not a lake.", "novels", "lakes", "c"),
]
BLOCK = 32
PIECES = re.compile(r" ?[A-Za-zéè]{1,4}|\n|[ \t]+|[^\sA-Za-zéè]")


def world() -> Text:
    """The documents in pieces of up to four letters, packed into blocks of 32 positions that each begin with a separator."""
    pieces = [list(PIECES.findall(text)) for text, *_ in DOCUMENTS]
    assert ["".join(some) for some in pieces] == [text for text, *_ in DOCUMENTS]
    known = ["<end>", *sorted({p for some in pieces for p in some})]
    token, document = [], []
    for number, some in enumerate(pieces):
        for piece in some:
            if len(token) % BLOCK == 0:
                token.append(0)
                document.append(number)
            token.append(known.index(piece))
            document.append(number)
    token_N, document_N = np.array(token), np.array(document)
    columns = {name: [row[place] for row in DOCUMENTS] for place, name in ((1, "source"), (2, "topic"), (3, "title"))}
    text = Text(
        token_N, document_N, token_N != 0, BLOCK, 0, Vocabulary(known), ["train"] * 4, columns,
        write=lambda: write(token_N, document_N, [piece.encode() for piece in known], 0),
    )  # fmt: skip
    text.prepare()
    return text


@pytest.fixture(scope="module")
def text() -> Text:
    return world()


def where(text: Text, claim: str) -> list[str]:
    """The tokens at which it holds."""
    holds_N = read_claim(claim).holds(text.around(np.arange(len(text.token_N)))) & text.kept_N
    return [text.vocabulary.texts[token] for token in text.token_N[holds_N]]


def beside(text: Text, p: int, offset: int) -> str:
    """The token so many places on in the same document and block, "" where there is none."""
    q = p + offset
    if not 0 <= q < len(text.token_N) or q // BLOCK != p // BLOCK or text.document_N[p] != text.document_N[q]:
        return ""
    return "" if text.token_N[q] == 0 else text.vocabulary.texts[text.token_N[q]]


def slowly(text: Text, claim: str, holds) -> None:
    wanted = [p for p in range(len(text.token_N)) if text.kept_N[p] and holds(p)]
    around = text.around(np.arange(len(text.token_N)))
    assert np.flatnonzero(read_claim(claim).holds(around) & text.kept_N).tolist() == wanted
    assert wanted


# ---- where they hold ----


def test_tokens_and_what_stands_beside_them(text):
    assert where(text, "token:/^ lake$/ next:s") == [" lake"] * 2
    assert where(text, "token:/^ lake?$/ next:/^s$/") == [" lake"]
    slowly(text, "token:ve", lambda p: "ve" in beside(text, p, 0))
    slowly(text, "before:/^ the$/i", lambda p: beside(text, p, -1).lower() == " the")
    slowly(text, "before@2:/^ the$/", lambda p: beside(text, p, -2) == " the")
    slowly(text, "next@3:/r/", lambda p: "r" in beside(text, p, 3))


def test_boolean_combinations_hold_as_they_say(text):
    def river(p):
        return beside(text, p, 0) == " rive" or beside(text, p, 0) == "rive"

    slowly(text, "(token:/^ ?rive$/ or token:/^ lake$/) not language:fr",
           lambda p: (river(p) or beside(text, p, 0) == " lake") and text.document_N[p] != 1)  # fmt: skip
    slowly(
        text, "not (token:e or before:e)", lambda p: "e" not in beside(text, p, 0) and "e" not in beside(text, p, -1)
    )


def test_near_and_context_look_sixteen_tokens_either_way(text):
    def near(p):
        return any(beside(text, p, step) == " lake" for step in range(-16, 17) if step)

    slowly(text, "near:/^ lake$/", near)
    fast = where(text, "context:/It ran/")
    assert " It" in fast
    assert " wide" in fast
    assert fast[-1] != "lake"


def test_places_of_words_sentences_and_lines(text):
    assert where(text, 'is:"document start"') == ["The", "La", "def", "Rive"]
    starts = where(text, 'is:"sentence start"')
    assert starts[:3] == ["The", " It", "“"]
    assert where(text, 'is:"line start" source:novels') == ["The", "“", "Rive"]
    assert (
        where(text, 'is:"inside word" source:novels')[:3]
        == [" rive", "r", " wide"][:2] + where(text, 'is:"inside word" source:novels')[2:3]
    )
    slowly(text, "is:comma", lambda p: beside(text, p, 0).strip(" ") == ",")


def test_documents_by_language_source_topic_and_title(text):
    slowly(text, "language:fr", lambda p: text.document_N[p] == 1)
    slowly(text, "language:code", lambda p: text.document_N[p] == 2)
    slowly(text, "source:NOVELS", lambda p: text.document_N[p] in (0, 3))
    slowly(text, "topic:/^l/", lambda p: text.document_N[p] in (1, 3))
    slowly(text, "title:shapes", lambda p: text.document_N[p] == 2)


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        ("comment", ["#", " half", " of", " it", "#", " ", "‘", "π", "’"]),
        ("keyword", ["def", "retu", "rn", "clas", "s"]),
        ("definition", [" area", " Box"]),
        ("call", [" load"]),
        ("attribute", ["pi"]),
        ("number", ["2"]),
        ("string", [" f", "'", "x", "'", '"', "é", '"']),
    ],
)
def test_parts_of_python_source(text, kind, tokens):
    found = where(text, f"syntax:{kind}")
    if kind == "comment":  # a space before a sign is a token of its own here, and stands inside the comment
        assert [token for token in found if token.strip()] == [token for token in tokens if token.strip()]
    else:
        assert found == tokens


def test_the_space_that_a_line_begins_with_is_its_indent(text):
    assert set(where(text, "syntax:indent")) == {"    ", "   "} & set(where(text, "syntax:indent"))
    assert len(where(text, "syntax:indent")) == 3


def test_a_piece_of_source_that_cannot_be_read_to_its_end_is_read_as_far_as_it_goes():
    from interp.predicates.syntax import syntax

    raw = "x = (1,\n  2\n"
    document = np.zeros(len(raw), dtype=np.int64)
    characters = sorted(set(raw))
    written = write(np.array([characters.index(c) + 1 for c in raw]), document,
                    [b"<end>", *(c.encode() for c in characters)], 0)  # fmt: skip
    found = syntax(written, ["a.py"], document)
    assert [raw[p] for p in np.flatnonzero(found & BIT["number"])] == ["1", "2"]
    assert not syntax(written, ["a.txt"], document).any()


@pytest.mark.parametrize(
    "mined",
    [
        Predicate(kind="token", here=(3, 5)),
        Predicate(kind="piece", here=(3, 9, 12), inside=True),
        Predicate(kind="class", here="punctuation"),
        Predicate(kind="next", next=(4, 6, 11)),
        Predicate(kind="after", before="article"),
        Predicate(kind="ngram", earlier=(7, 8, 9, 10, 11, 12), before=(3, 4, 5, 6, 7, 8, 9), here="letter"),
        Predicate(kind="near", near=(10, 14)),
        Predicate(kind="language", value="fr"),
        Predicate(kind="source", value="novels"),
        Predicate(kind="topic", value="lacs"),
    ],
)
def test_a_mined_predicate_and_the_claim_that_it_writes_hold_at_the_same_positions(text, mined):
    around = text.around(np.flatnonzero(text.kept_N))
    claim = read_claim(mined.claim(text.vocabulary.texts))
    assert (claim.holds(around) == mined.holds(around)).all()
    assert parse(mined.query(text.vocabulary.texts)).terms


# ---- how they are written ----


def test_every_key_has_its_function_and_its_words():
    assert set(HOLDS) == set(HELP) == set(CLAIM.help)
    said = known_keys()
    assert {f"syntax:{kind}" for kind in KINDS} <= set(said)
    assert all(read_claim(written) for written in said if ":" in written and not written.startswith("kind"))
    assert 'is:"inside word"' in said


def test_a_claim_is_written_as_it_is_read():
    for line in (
        "token:/^ ?river$/ not language:fr",
        '(is:digit or before@2:/\\//) near:"a b"',
        "not (topic:x or source:y)",
    ):
        assert str(read_claim(line)) == line
    assert read_claim("token:a or token:b").root == Or((Term("token", "a"), Term("token", "b")))
    assert read_claim("token:a not token:b").root == And((Term("token", "a"), Not(Term("token", "b"))))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (r"token:/^ ?(?:river|lake)$/ not language:fr", "the token is ‘river’ or ‘lake’, and the document is not in French"),
        (r"token:/ing$/", "the token matches /ing$/"),
        (r"token:/^(?: a\.b| c)$/", "the token is ‘·a.b’ or ‘·c’"),
        (r"not (token:/^a$/ before:/^b$/)", "the token is not ‘a’, or the token before it is not ‘b’"),
        (r"next@2:/^b$/ or is:digit", "the second token after it is ‘b’, or the token is digits"),
        (r"not near:/^x$/", "no token within 16 is ‘x’"),
        ('is:"inside word" not syntax:comment', "the token is a part of a longer word, and the token is not part of a comment in Python source"),
        ('context:"the bank" source:news', "the text around it has ‘the·bank’, and the document's source is news"),
        (r"token:/^(?:a|b|c|d|e|f|g|h)$/", "the token is one of 8 such as ‘a’, ‘b’, ‘c’, ‘d’, ‘e’, ‘f’"),
    ],
)  # fmt: skip
def test_a_claim_is_said_in_plain_words(line, sentence):
    assert read_claim(line).sentence == sentence


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the claim says nothing"),
        ("river", "has no key; the keys are token, before"),
        ("tokn:river", "no claim key .* 'tokn'"),
        ("is:digits", "no is: 'digits'"),
        ("syntax:verb", "no syntax: 'verb'"),
        ("language:de", "no language: 'de'"),
        ("token:/(/", "no regular expression RE2 takes"),
        ("token:/x*/", "matches the empty text"),
        ("before@99:x", "looks 1 to 16 tokens away"),
        ("token@2:x", "token: takes no @"),
        ("is:/x/", "is: takes no /regex/"),
        ("token:x (", "a \\( is not closed|nothing between"),
        ("at:(token:x)", "no claim key .* 'at'"),
        ("token:" + "x" * 5_000, "5,006 characters; 4,000 are the most"),
    ],
)
def test_what_is_no_claim_is_answered_in_a_sentence(line, message):
    with pytest.raises(InterpError, match=message):
        read_claim(line)


def test_a_text_whose_bytes_are_not_at_hand_says_so():
    bare = Text(np.array([0, 1]), np.zeros(2, int), np.array([False, True]), 8, 0, Vocabulary(["", "a"]), ["train"], {})
    with pytest.raises(InterpError, match="not at hand"):
        read_claim("context:a").holds(bare.around(np.array([1])))
    with pytest.raises(InterpError, match="source: asks what this text does not say"):
        read_claim("source:a").holds(bare.around(np.array([1])))


# ---- in a search ----


def test_a_claim_stands_in_a_search_between_parentheses():
    asked = parse("at:(token:/x/ not is:digit) density:1e-3.. sort:max")
    term = asked.terms[0]
    assert (term.key, term.value, asked.sort) == ("at", "token:/x/ not is:digit", "max")
    assert isinstance(Claim(term.inner).sentence, str)
    assert parse(str(asked)) == asked


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("at:token", "at: takes a condition in parentheses"),
        ("token:(is:digit)", "token: takes no parentheses .*; at does"),
        ("at:()", "nothing between"),
        ("at:(is:digit", "not closed"),
        ("at:(density:1)", "no claim key .* 'density'"),
        ("at:(is:digit sort:max)", "no claim key .* 'sort'"),
        ("at:(lake)", "has no key"),
    ],
)
def test_a_claim_that_cannot_be_read_is_answered_where_it_stands(query, message):
    with pytest.raises(InterpError, match=message):
        parse(query)


def test_the_text_that_is_written_has_no_marks_of_its_own():
    """Matches are found by marks around them, which the text must not have: those it has become question marks."""
    written = write(np.array([1, 2, 3]), np.zeros(3, dtype=np.int64), [b"", b"a\x01", b"\x02b", b"\xc3"], 0)
    assert written.documents.to_pylist() == ["a??b?"]
    assert written.end_N.tolist() == [2, 4, 5]


@pytest.fixture(scope="module")
def shipped():
    """The embedded SAE with what ships with it."""
    from interp.workbench import EMBEDDED, Workbench
    from tests.conftest import ROOT

    return Workbench.open(ROOT / EMBEDDED, labels="sqlite://")


def test_a_search_for_a_claim_says_it_in_words_and_how_far_it_is_true(shipped):
    hits = shipped.search("at:(token:/^ ?[0-9]/ language:fr)", limit=3)
    # More follows where text of the index is not on this machine.
    assert ": the token matches /^ ?[0-9]/, and the document is in French" in hits.notes[0]
    assert hits.partial
    assert "strongest examples this holds" in hits[0].why["at"]
    none = shipped.search("at:(token:/^ the$/ before:/^ the$/ next:/^ the$/)")
    assert not none
    assert "at no indexed token" in none.notes[0]
