"""Dictionaries as dictd packs them: of English (GCIDE), of computing (FOLDOC), of hackers' words (the Jargon File).

A packed dictionary is a compressed text and an index of (headword, offset, length), the numbers in base 64. Entries that follow each
other are gathered to documents.

Source  dictfmt(1), dictzip(1).
"""

import gzip
import re
import string
from collections.abc import Callable, Iterator
from functools import reduce

from interp.corpus import archives
from interp.corpus.documents import Corpus, Document
from interp.corpus.sources import flow

GATHERED = 1_600
"""Characters of entries that make a document."""
_DIGITS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_SOURCE = re.compile(
    r"\[(?:\d{4} Webster|Webster|PJC|WordNet|Century|Also|AS|RP|rap|Camp|a1911|MW10|Funk|Oxford|Stormonth|Jaywalk)[^\]]*\]\S*(?=\s|$)"
)
_LETTERS = {
    "ae": "æ",
    "AE": "Æ",
    "oe": "œ",
    "OE": "Œ",
    "eacute": "é",
    "'e": "é",
    "`e": "è",
    "^o": "o",
    "deg": "°",
    "frac12": "½",
}


def gcide() -> Corpus:
    """The Collaborative International Dictionary of English: Webster's of 1913 with additions."""
    return _dictionary(
        "gcide",
        "gcide",
        _english,
        "GPL-2.0-or-later (GCIDE)",
        "entries of the Collaborative International Dictionary of English",
    )


def foldoc() -> Corpus:
    """The Free On-line Dictionary of Computing."""
    return _dictionary(
        "foldoc",
        "foldoc",
        _computing,
        "GFDL-1.1-or-later (FOLDOC, Denis Howe)",
        "entries of the Free On-line Dictionary of Computing",
    )


def jargon() -> Corpus:
    """The Jargon File."""
    return _dictionary(
        "jargon",
        "jargon",
        _hackers,
        "public domain (the Jargon File 4.4.7)",
        "entries of the Jargon File, the words of hackers",
    )


def _dictionary(name: str, archive: str, said: Callable[[str], str], licence: str, about: str) -> Corpus:
    def read() -> Iterator[Document]:
        held: list[tuple[str, str]] = []
        for headword, entry in _entries(archive):
            text = said(entry)
            if text:
                held.append((headword, text))
            if sum(len(one) for _, one in held) > GATHERED:
                yield _document(name, held)
                held = []
        if held:
            yield _document(name, held)

    return Corpus(name=name, licence=licence, about=about, version=archives.version(archive), read=read)


def _document(name: str, held: list[tuple[str, str]]) -> Document:
    first, last = held[0][0], held[-1][0]
    title = first if first == last else f"{first} to {last}"
    return Document(
        text="\n\n".join(text for _, text in held), source=name, title=title, topic=f"dictionary: {first[:1].upper()}"
    )


def _entries(archive: str) -> Iterator[tuple[str, str]]:
    """(Headword, entry) in the order of the text; an entry that has several headwords once, under the first."""
    files = {
        path.rsplit(".", 1)[1]: data for path, data in archives.members(archive, "*/dictd/*.index", "*/dictd/*.dict.dz")
    }
    text = gzip.decompress(files["dz"])
    headwords: dict[tuple[int, int], str] = {}
    for line in files["index"].decode("utf-8").splitlines():
        word, offset, size = line.split("\t")[:3]
        if not word.startswith("00-database") and "00database" not in word:
            headwords.setdefault((_number(offset), _number(size)), word)
    for (start, length), word in sorted(headwords.items()):
        yield word, text[start : start + length].decode("utf-8", "replace")


def _number(digits: str) -> int:
    return reduce(lambda value, digit: value * 64 + _DIGITS.index(digit), digits, 0)


def _english(entry: str) -> str:
    """An entry of GCIDE: its word, what part of speech it is, and its senses; no pronunciation, etymology or sources."""
    head, senses = _head(entry)
    word = re.split(r"\s*\\", head, maxsplit=1)[0].strip(" ,")
    rest = re.sub(r"\\[^\\]*\\", " ", head[len(word) :])
    rest = re.sub(r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]|\((?=[^)]*[\[\"`^*])[^()]*\)", " ", rest)
    speech = re.search(r"\b(?:n|a|v\. t|v\. i|adv|prep|pron|conj|interj|p\. p|n\. pl)\.", rest)
    body = "\n\n".join(filter(None, (_sense(part) for part in flow.paragraphs(senses))))
    body = re.sub(r"^(?:[^\[]{0,60}?\[(?:[A-Z][a-z]{0,3}\.|From|Cf\.|See) [^\]]{8,}\]\s*|\[[^\]]*\]\s*)+", "", body)
    if len(body) < 12 or not re.search("[a-z]{3} [a-z]", body) or re.search(r"\w\*\w|\\|\*\)|^\W?\*", body[:160]):
        return ""
    named = word.split(" \\")[0]
    return f"{named}, {speech[0]} {body}" if speech else f"{named}: {body}"


def _head(entry: str) -> tuple[str, str]:
    """The lines that name the word, up to where its etymology ends, and the rest."""
    lines = entry.strip("\n").split("\n")
    last = 1
    while last < len(lines) and lines[last].strip() and _is_open(" ".join(lines[:last])):
        last += 1
    return " ".join(line.strip() for line in lines[:last]), "\n".join(lines[last:])


def _is_open(head: str) -> bool:
    return head.count("[") > head.count("]") or head.count("(") > head.count(")") or head.count("\\") % 2 > 0


def _sense(part: str) -> str:
    """A paragraph of an entry in one line, without what says which dictionary it is from."""
    lines = [line for line in part.split("\n") if not _SOURCE.match(line.strip())]
    text = re.sub(_SOURCE.pattern + r"(?:\s+[A-Z][\w-]*$)?", "", " ".join(line.strip() for line in lines))
    text = re.sub(r"^\\[^\\]*\\[^\[]{0,40}\[[^\]]*\]|\\[^\\]*\\", "", text)
    text = re.sub(r"\[(?:Narrower terms|prenominal|predicate)[^\]]*\](?: \w+$)?", "", text)
    text = re.sub(r"[{}]", "", re.sub(r"\s*\((?=[^()]*[*`\"])[^()\s]{2,40}\)", "", text))
    text = re.sub(r"\[([^\[\]\s]{1,6})\]", lambda found: _letter(found[1]), text)
    text = re.sub(r"(?:--\s*)?\S*\w\*\w\S*,?\s*(?:adv|n|a|p\. a)\.", "", text)
    text = re.sub(r"\(\s*Fr\.[^)]*\)|\s*\[See Illust[^\]]*\]", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    return "" if re.fullmatch(r"\W*(?:See \W?\w+\W*)?", text) else text


def _letter(code: str) -> str:
    """A letter that was written in brackets: `[ae]`, `[=o]`, `[=a]`; others, as `[Obs.]`, stay."""
    if code in _LETTERS:
        return _LETTERS[code]
    found = re.fullmatch(r"[=^`'.\"~,-]+([A-Za-z])|([A-Za-z])[=^`'.\"~,-]+", code)
    if found and not code.endswith("."):
        return found[1] or found[2]
    named = re.fullmatch(r"([A-Za-z])(?:mac|breve|circ|asl|um|acute|grave|cir|til|uml|cced)", code)
    return named[1] if named else f"[{code}]"


def _computing(entry: str) -> str:
    """An entry of FOLDOC: its word and its text; no dates, addresses or alternative names."""
    word, _, rest = entry.strip("\n").partition("\n")
    parts: list[str] = []
    for part in flow.paragraphs(rest):
        text = re.sub(r"\{\([^)]*\)\}|\{(?:https?|ftp)[^}]*\}|\(?(?:https?|ftp)://\S+", "", part)
        text = re.sub(r"\{([^{}]*)\}", r"\1", re.sub(r"\s*<\S+@[^>]*>", "", text)).strip()
        text = re.sub(r"^/[^/\n]*/\s*", "", text)
        if re.fullmatch(r"\(\d{4}-\d\d-\d\d\)|\W*|\[.*\??\]", text, re.DOTALL) or not part.startswith("   "):
            continue
        text = flow.joined(re.sub(r"(?:^|(?<=\d\. ))<[A-Za-z][\w ,/-]*>\s*|^\([^)]*\)\s*(?=<)", "", text))
        parts.append(re.sub(r"\s*\(?(?:Home|Usenet newsgroup|E-mail|Telnet|FTP)\b[^.]*?:?\s*\)?\.$", "", text))
    body = "\n\n".join(filter(None, parts))
    return f"{word.strip()}: {body}" if len(body) > 40 and not (body[0] == "[" and body[-1] == "]") else ""


def _hackers(entry: str) -> str:
    """An entry of the Jargon File: its word and its text."""
    word, _, rest = entry.strip("\n").partition("\n")
    parts = flow.paragraphs(rest)
    if parts and re.match(r"\s*(?:/.*/|\w+\.|adj|n|v)", parts[0]) and len(parts[0]) < 80:
        parts = parts[1:]
    text = [flow.joined(re.sub(r"\{([^{}]*?)\s*\}", r"\1", part)) for part in parts]
    body = "\n\n".join(re.sub(r"(?<=\w)\s+\n", "\n", one) for one in text)
    return f"{word.strip()}: {body}" if len(body) > 40 else ""
