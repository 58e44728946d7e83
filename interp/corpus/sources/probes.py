"""Prose out of the labelled sets of `sae-probes`: reviews, news, abstracts, dilemmas, questions. Each row is in one corpus only.

Left out: sets of names and other single words, text in small letters without punctuation (`ai_gen`, `cancer_cat`), snippets that start
inside a word (`wikidata…`, the phrase sets), the one-class sets, which hold the rows of others again, and of the AG News sets and
the news whatever is not labelled 1: code in the one, pages of one web site in the other.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import zstandard

from interp import places
from interp.corpus.documents import Corpus, Document
from interp.corpus.rows import csv_rows
from interp.corpus.sources import flow
from interp.corpus.sources.installed import version

LICENCE = "MIT (sae-probes; its parts come from public sets with terms of their own)"
GATHERED = 1_200
"""Characters of short questions that make a document."""
_NOT_ENDED = re.compile(r"[^.!?…\"'”’)*\]]$")


def reviews() -> Corpus:
    """Reviews of shops and goods."""
    sets = {"111_yelp_data": _review, "157_amazon_5star": _review}
    return _corpus("reviews", "reviews of restaurants, shops and goods", lambda: _each("reviews", sets, least=120))


def news() -> Corpus:
    """News agency reports, and leads of the news."""
    sets = dict.fromkeys(("161_agnews_0", "162_agnews_1", "163_agnews_2", "97_news_class"), _lead)
    return _corpus(
        "news", "news reports and leads, in English", lambda: _each("news", {"100_news_fake": _report} | sets, least=80)
    )


def abstracts() -> Corpus:
    """Abstracts of medical papers."""
    sets = {"101_disease_class": lambda text, _: text.strip()}
    return _corpus("abstracts", "abstracts of medical papers", lambda: _each("abstracts", sets, least=300))


def essays() -> Corpus:
    """What people wrote of themselves to ask whether they were in the wrong."""
    return _corpus(
        "essays",
        "first-person accounts of everyday conflicts",
        lambda: _each("essays", {"48_cm_correct": _account}, least=400),
    )


def questions() -> Corpus:
    """Passages with the questions asked about them, and questions of science and everyday life with answers to choose from."""
    return _corpus("questions", "passages with questions, and questions with answers to choose from", _questions)


def _corpus(name: str, about: str, read: Callable[[], Iterator[Document]]) -> Corpus:
    return Corpus(name=name, licence=LICENCE, about=about, version=version("sae-probes"), passes_on=False, read=read)


def labelled_folder() -> Path:
    """Where the sets lie, a file each; InterpError when the package is not installed."""
    return places.package_folder("sae_probes") / "data" / "cleaned_data"


def labelled_rows(name: str) -> Iterator[tuple[int, str, str]]:
    """(Row number, prompt, label) of a set; InterpError when the package is not installed."""
    with (labelled_folder() / f"{name}.csv.zst").open("rb") as raw:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8", newline="")
        for row, entry in enumerate(csv_rows(csv.DictReader(text))):
            yield row, entry["prompt"], entry["target"]


def _each(source: str, sets: Mapping[str, Callable[[str, str], str]], *, least: int) -> Iterator[Document]:
    """The rows of the sets as documents of at least `least` characters, each text once."""
    seen: set[bytes] = set()
    for name, said in sets.items():
        for row, prompt, label in labelled_rows(name):
            doc = Document(text=said(prompt, label), source=source, title=f"{name}:{row}", topic=name.partition("_")[2])
            if len(doc.text) >= least and doc.digest not in seen:
                seen.add(doc.digest)
                yield doc


def _review(text: str, _: str) -> str:
    text = text.replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'").replace("&#34;", '"')
    text = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), re.sub(r"<br\s*/?>", "\n", text))
    text = re.sub(r"^Title: (.*)\nReview: ", r"\1\n\n", text)
    return _whole(re.sub(r"[ \t]*\n\s*\n\s*", "\n\n", re.sub(r" {2,}", " ", text)).strip())


def _lead(text: str, label: str) -> str:
    """A lead of AG News, its lost entities put back; empty for rows that are none."""
    if label == "0":
        return ""
    text = re.sub(r" ?#(\d{2,3});", lambda found: chr(int(found[1])), text)
    text = re.sub(
        r" ?\b(quot|amp|lt|gt);", lambda found: {"quot": '"', "amp": "&", "lt": "<", "gt": ">"}[found[1]], text
    )
    text = re.sub(r"<[^>]*>|&lt;.*?&gt;|\\", " ", text)
    return " ".join(text.split())


def _report(text: str, label: str) -> str:
    return re.sub(r" {2,}", "\n\n", text.strip()) if label == "1" else ""


def _account(text: str, _: str) -> str:
    title, bar, rest = text.partition(" | ")
    text = f"{title}\n\n{rest}" if bar else text
    text = re.sub(r"\*\*|&#x200B;|&amp;#x200B;", "", text).replace("&amp;", "&").replace("&gt;", ">")
    text = re.sub(r"\\([*_^#~>-])", r"\1", text)
    return re.sub(r"\n\s*\n\s*", "\n\n", re.sub(r" {2,}", " ", text)).strip()


def _whole(text: str) -> str:
    """The text up to its last whole sentence."""
    if not _NOT_ENDED.search(text):
        return text
    end = max(text.rfind(mark) for mark in (". ", "! ", "? ", ".\n", "!\n", "?\n"))
    return text[: end + 1] if end > len(text) // 2 else text


def _questions() -> Iterator[Document]:
    passages: dict[str, list[str]] = {}
    for _, prompt, _ in labelled_rows("45_context_ans"):
        passage, question, choices = prompt.rsplit("\n", 2)
        passages.setdefault(passage, []).append(f"{question}\n{_choices(choices)}")
    for number, (passage, asked) in enumerate(passages.items()):
        text = "\n\n".join([passage.strip(), *dict.fromkeys(asked)])
        yield Document(text=text, source="questions", title=f"45_context_ans:{number}", topic="context_ans")
    for name in ("36_sciq_tf", "44_phys_tf", "47_reasoning_tf", "55_open_qa"):
        topic = name.partition("_")[2]
        right = (
            _choices(prompt.strip())
            for _, prompt, label in labelled_rows(name)
            if not (name == "36_sciq_tf" and label == "0")
        )
        for number, text in enumerate(flow.gathered(dict.fromkeys(right), GATHERED)):
            yield Document(text=text, source="questions", title=f"{name}:{number}", topic=topic)


def _choices(text: str) -> str:
    """The answers to choose from, a line each."""
    text = re.sub(r"\s+\(([A-E])\) ?", r"\n\1. ", re.sub(r" {2,}", " ", text))
    return re.sub(r"\s+([A-E])\. ?(?=\S)|^([A-E])\.(?=\S)", lambda found: f"\n{found[1] or found[2]}. ", text).strip()
