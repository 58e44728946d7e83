"""What mathematicians wrote beside the formal proofs of Metamath: statements and remarks, without the proofs.

1.  The comments are cut out, and who contributed or shortened what is cut off.
2.  Formulas between backquotes, which are tokens in ASCII, are set in the symbols that the database itself gives for them.
3.  Remarks of one section, in their order, are gathered to documents.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping

from interp.corpus import archives
from interp.corpus.documents import Corpus, Document
from interp.corpus.sources import flow

GATHERED = 1_600
"""Characters of remarks that make a document."""
_COMMENT = re.compile(r"\$\((\s.*?)\s\$\)(?:\s+[\w.-]+\s+\$[ap])?", re.DOTALL)
_RULE = re.compile(r"^\s*(?:[#*]{8,}|(?:[=.#]-|-\.|#\*|\*#|=-|-=){8,}[-=#*.]?)\s*$", re.MULTILINE)
_CREDIT = re.compile(
    r"\(\s*(?:Contributed|Revised|Revision|Proof|New usage|Moved|Modified|Proposed|Provided|Unnecessary|Used|Avoid|Shortened|Based)"
    r"\b[^()]*(?:\([^()]*\)[^()]*)*\)"
)
_SYMBOL = re.compile(
    r'althtmldef\s+(?:"([^"]*)"|\'([^\']*)\')\s+as\s+(.*?);\s*(?=$|/\*|althtmldef|htmldef|latexdef)',
    re.DOTALL | re.MULTILINE,
)
_ONLY_A_LEMMA = re.compile(r"\W*(?:sub)?lemma (?:for|used in) \S+\s*", re.IGNORECASE)
_FOR_AUTHORS = re.compile("Metamath source file|Contents of this header|Appendix: Typesetting")
_LEAST = 30


def metamath() -> Corpus:
    """The comments of Metamath's set.mm."""
    return Corpus(
        name="metamath",
        licence="CC0-1.0 (Metamath set.mm)",
        about="statements and remarks of mathematics, from logic to analysis, without their formal proofs",
        version=archives.version("metamath"),
        read=lambda: _read(),
    )


def _read() -> Iterator[Document]:
    ((_, content),) = archives.members("metamath", "*/databases/set.mm")
    text = content.decode("utf-8")
    symbols = _symbols(text)
    seen, counts = set[str](), Counter[str]()
    section, held = "", list[str]()
    for found in _COMMENT.finditer(text):
        heading, remark = _parted(found[1])
        if heading:
            yield from _documents(section, held, counts)
            section, held = heading, []
        for part in flow.paragraphs(remark):
            said = _said(part, symbols)
            if len(said) >= _LEAST and not _ONLY_A_LEMMA.fullmatch(said) and said not in seen:
                seen.add(said)
                held.append(said)
    yield from _documents(section, held, counts)


def _documents(section: str, remarks: list[str], counts: Counter[str]) -> Iterator[Document]:
    for text in flow.evenly(remarks, GATHERED) if section and remarks else ():
        if len(text) > 2 * _LEAST:
            counts[section] += 1  # several sections may have one name
            yield Document(text=text, source="metamath", title=f"{section}, {counts[section]}", topic=section)


def _parted(comment: str) -> tuple[str, str]:
    """A comment's heading, if it has one between two rules, and the rest of it."""
    parts = _RULE.split(comment)
    if len(parts) >= 3 and not parts[0].strip():
        heading = " ".join(parts[1].split()).removeprefix("RP ADDTO: ")
        return html.unescape(heading), "" if _FOR_AUTHORS.match(heading) else "\n".join(parts[2:])
    return "", comment


def _said(paragraph: str, symbols: Mapping[str, str]) -> str:
    """A remark as one reads it; empty if it is but a table, HTML or a note to its authors."""
    text = _CREDIT.sub("", html.unescape(" ".join(paragraph.split())))
    if re.search(
        r"<[A-Za-z/][^>]*>|\$[a-z\[]|^Version|@[a-z]|htmldef|TODO|FIX COMMENT|PROPOSED|\*\*\*", text
    ) or text.startswith(("#", "-----", "=====", "(End of")):
        return ""
    text = re.sub(r"`` ?|` ([^`]*) `|`([^`]*)`", lambda found: _formula(found[1] or found[2] or "", symbols), text)
    text = re.sub(r"~ (?=\S)", "", text)
    text = re.sub(r"\bObsolete (?:version|proof) of \S+ as of \S+", "", text)
    text = re.sub(r"(?<=\w) (?=-(?:th|ary|fold|tuple)\b)", "", text)
    text = re.sub(r"(?<![\w])_(\w[^_]*)_(?!\w)", r"\1", text)
    return " ".join(re.sub(r"\s+([.,;:)])(?=\s|$)", r"\1", text).split())


def _formula(tokens: str, symbols: Mapping[str, str]) -> str:
    text = " ".join(symbols.get(token, token) for token in tokens.split())
    return re.sub(r"(?<=[(\[{⟨]) | (?=[)\]}⟩,])", "", text)


def _symbols(text: str) -> dict[str, str]:
    """Unicode for each token, from the database's own typesetting definitions."""
    start = text.find("$t")
    found = {}
    for one in _SYMBOL.finditer(text, start) if start >= 0 else ():
        written = "".join(re.findall(r'"([^"]*)"|\'([^\']*)\'', one[3])[0]) if one[3] else ""
        plain = html.unescape(re.sub(r"<[^>]*>", "", written)).strip()
        if plain:
            found[html.unescape(one[1] or one[2])] = unicodedata.normalize("NFKC", plain)
    return found
