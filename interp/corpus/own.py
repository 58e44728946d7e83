"""Corpora of a user's own text, and how they are named.

`NAME` is a file, a folder of files, `hf:org/name` or a packaged corpus. After a `#` stand, in any order and each after a
`#` of its own:

    #content          the field that holds the text of each row
    #content@language the same, and the field that is kept as each document's topic (`#@language` for the topic alone)
    #label=good       only rows whose field has this value
    #lines            how a .txt is parted: `paragraphs`, `lines`, `whole`, or at most so many characters (`#4000`)

A .txt is parted at blank lines (see `txt`); a row is one document. The documents of one file become tokens in their order, those
of a folder in one drawn from a seed (see `turns`).
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from interp.corpus import fields, rows
from interp.corpus.documents import Corpus, Document, FileReading, Reading, mix
from interp.corpus.media import media_kind, open_media
from interp.corpus.numbers import ARRAY, numbers_in, open_array, open_table
from interp.corpus.packaged import CORPORA
from interp.corpus.turns import drawn, in_turns
from interp.corpus.txt import PARTINGS, described, read_txt
from interp.render.terminal import say
from interp.render.words import counted, size
from interp.types import InterpError, unknown

KINDS = (".txt", *rows.READERS)
HOW = "A text may also be a .txt, .jsonl, .json, .csv, .tsv or .parquet file, a folder of them, or hf:org/name."


@dataclass(frozen=True)
class Choice:
    """What was asked for after the `#`s of a name."""

    field: str = ""
    topic: str = ""
    column: str = ""
    value: str = ""
    parting: str = ""

    @property
    def whole(self) -> "Choice":
        """The same for what is no .txt, where the name of a parting is that of a field."""
        return self if not self.parting else Choice(self.parting, self.topic, self.column, self.value)


def open_corpus(
    name: str | Path | Tensor | np.ndarray, *, seed: int = 0, topics: Iterable[Any] | None = None
) -> Corpus:
    """The corpus of that name: a packaged one (see `CORPORA`), a file, a folder, or `hf:org/name`, with what may follow it
    after a `#` (see the head of this module). `seed` draws the order in which its documents become tokens.

    For a module of one's own, an array or a tensor whose first axis is the items, or a .npy file of one, with a topic for each
    in `topics`; or a .parquet file of numbers (see `numbers`).

    Files are .txt, .jsonl, .json, .csv, .tsv and .parquet, compressed as .gz or .zst if need be; a folder without any of
    these may hold pictures or sound (see `media`), for models that read such. The text of a row is its
    field `text`, or the only one that can be meant. Several names joined by `+` are mixed in equal shares.
    Raises InterpError for a name that is none of these, when it is not clear which field is meant, and when a file is
    missing, broken or empty.
    """
    if isinstance(name, Tensor | np.ndarray):
        return open_array(name, seed=seed, topics=topics)
    if (path := Path(name).expanduser()).suffix == ARRAY and path.is_file():
        return open_array(path, str(name), seed, topics)
    if topics is not None:
        raise InterpError(f"topics are given with an array of items; those of {name} are a field of it: {name}#@FIELD.")
    return _open(str(name), seed, "paragraphs")


def open_texts(name: str | Path) -> Corpus:
    """`open_corpus` for a set of texts to compare with another: a line of a .txt is a text of its own."""
    return _open(str(name), 0, "lines")


def read_texts(name: str | Path) -> Iterator[str]:
    """The texts of `open_texts`, in an order drawn once and for all; says how many rows had none."""
    reading = Reading()
    yield from (doc.text for doc in open_texts(name).in_mixed_order(reading))
    if reading.no_text:
        say(f"{name}: {counted(reading.no_text, 'row')} without text skipped.")


def second_set(first: str, second: str) -> str:
    """The name of the second of two sets: of FILE#column=one,other the rest is the first's.

    Raises InterpError when the second is neither a file, a corpus nor a value of a column.
    """
    if "#" not in first or "#" in second or second in CORPORA or Path(second).expanduser().exists():
        return second
    column, equals, _ = first.rpartition("=")
    if not equals:
        raise InterpError(f"{second} is no file or corpus; for two values of a column, write #column=value,other.")
    return f"{column}={second}"


def _open(text: str, seed: int, parting: str) -> Corpus:
    where, choice = _parsed(text)
    if where in CORPORA:
        if choice.field or choice.topic or choice.parting:
            raise InterpError(f"{where} is a packaged corpus, whose text is known; only #column=value may follow it.")
        return CORPORA[where]().where(choice.column, choice.value) if choice.column else CORPORA[where]()
    if where.startswith("hf:"):
        return _hub(text, where.removeprefix("hf:"), choice.whole)
    path = Path(where).expanduser()
    if path.exists():
        return _local(text, path, choice, parting, seed)
    if "+" in text:
        return mix([(_open(part.strip(), seed, parting), 1.0) for part in text.split("+")])
    if rows.kind(path) in KINDS or "/" in where or "\\" in where:
        raise InterpError(f"there is no file or folder {path}; give one that exists, or one of {', '.join(CORPORA)}.")
    raise unknown("corpus", where, CORPORA, try_=HOW)


def _parsed(text: str) -> tuple[str, Choice]:
    """(what is named, what is asked of it); a `#` in the name of a file that exists is part of the name."""
    parts = text.split("#")
    ends = [n for n in range(len(parts), 1, -1) if Path("#".join(parts[:n])).expanduser().exists()]
    end = ends[0] if ends else 1
    given: dict[str, str] = {}
    for part in parts[end:]:
        column, equals, value = part.partition("=")
        if equals:
            asked = {"column": column, "value": value}
        elif part.isdigit() or part in PARTINGS:
            asked = {"parting": part}
        else:
            named, _, topic = part.partition("@")
            asked = {key: word for key, word in (("field", named), ("topic", topic)) if word}
        if not asked or given.keys() & asked.keys():
            raise InterpError(f"{text}: write #field, #field@topic or #column=value after the name, each at most once.")
        given |= asked
    return "#".join(parts[:end]), Choice(**given)


# ---- files ----


def _local(name: str, path: Path, choice: Choice, parting: str, seed: int) -> Corpus:
    alone = path.is_file()
    if kind := (media_kind(path) if alone or not _files(path)[0] else None):
        if choice != Choice():
            raise InterpError(f"{name}: {kind} have no fields; name the folder or the file alone.")
        return open_media(path, kind, name, seed)
    if alone and path.suffix == ".parquet" and not choice.column and numbers_in(path, choice.field, choice.topic):
        return open_table(path, name, choice.field, choice.topic, seed)
    files, left = ({path.name: path}, 0) if alone else _files(path)
    if not files or (alone and rows.kind(path) not in KINDS):
        raise InterpError(
            f"{path} has no text that can be read; the kinds are {', '.join(KINDS)}, also as .gz or .zst. A folder of "
            "pictures or sound is read by a model of such."
        )
    if alone and rows.kind(path) == ".txt" and (choice.field or choice.topic or choice.column):
        raise InterpError(
            f"{name}: a .txt has no fields; what may follow is #{', #'.join(PARTINGS)} or a number of characters."
        )
    cut = choice.parting or parting
    how: dict[str, Any] = {"seed": seed} if len(files) > 1 else {}
    if any(rows.kind(file) == ".txt" for file in files.values()):
        how["txt"] = described(cut)

    def read(file: str, reading: FileReading) -> Iterator[Document]:
        if rows.kind(files[file]) == ".txt":
            yield from read_txt(file, files[file], cut, reading)
            return
        try:
            yield from _rows_of(file, files[file], choice.whole if alone else choice, reading)
        except rows.NotRows:
            if alone:
                raise

    about = f"{counted(len(files), 'file')}, {size(sum(file.stat().st_size for file in files.values()))}"
    about += f", {left:,} of other kinds left out" if left else ""
    about += f"; .txt in {how['txt']}" if "txt" in how else ""
    about += f"; order drawn with seed {seed}" if "seed" in how else ""
    return _checked(_corpus(name, about, list(files), read, how), choice)


def _files(folder: Path) -> tuple[dict[str, Path], int]:
    """(text files of a folder by their path inside it, in order; how many others there are). Hidden ones are passed over,
    links to folders not followed, and a file that is linked twice comes once."""
    paths: list[Path] = []
    left = 0

    def refuse(error: OSError) -> None:
        raise InterpError(f"the folder {error.filename} cannot be read: {error.strerror}.")

    for place, inside, names in os.walk(folder, onerror=refuse):
        inside[:] = [name for name in inside if not name.startswith(".")]
        here = [Path(place) / name for name in names if not name.startswith(".")]
        texts = [path for path in here if rows.kind(path) in KINDS and path.is_file()]
        paths += texts
        left += len(here) - len(texts)
    once: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (path.is_symlink(), path)):
        once.setdefault(os.path.realpath(path), path)
    return {path.relative_to(folder).as_posix(): path for path in sorted(once.values())}, left


def _corpus(
    name: str,
    about: str,
    files: list[str],
    read: Callable[[str, FileReading], Iterator[Document]],
    how: dict[str, Any],
) -> Corpus:
    def mixed(reading: Reading) -> Iterator[Document]:
        reading.files |= {file: FileReading() for file in files}
        reading.how |= how
        draw = random.Random(how.get("seed"))

        def visit(file: str) -> Iterator[Document]:
            reading.files[file] = FileReading()
            yield from read(file, reading.files[file])
            reading.files[file].ended = True

        several = drawn(in_turns(draw.sample(files, len(files)), visit), draw)
        for doc in several if len(files) > 1 else visit(files[0]):
            reading.handed[doc.source] += 1
            yield doc

    return Corpus(
        name=name,
        licence="the user's own",
        about=about,
        version=f"seed {how['seed']}" if how.get("seed") else "",
        read=lambda: chain.from_iterable(read(file, FileReading()) for file in files),
        mixed=mixed,
    )


def _checked(corpus: Corpus, choice: Choice) -> Corpus:
    """The corpus, when it has a document; what is wrong with its first file comes out here."""
    if next(iter(corpus.read()), None) is None:
        wanted = f" where {choice.column} is {choice.value!r}" if choice.column else ""
        raise InterpError(f"the corpus {corpus.name} is empty: {corpus.about.partition(';')[0]}, and no text{wanted}.")
    return corpus


# ---- rows ----


def _rows_of(source: str, path: Path, choice: Choice, reading: FileReading) -> Iterator[Document]:
    line = "line" if rows.kind(path) in (".jsonl", ".ndjson", ".csv", ".tsv") else "row"
    reader = rows.READERS[rows.kind(path)]
    again = partial(reader, path) if rows.kind(path) == ".parquet" else None
    yield from _documents(source, path, reader(path, None), choice, reading, line, again)


def _documents(
    source: str,
    path: Path | str,
    values: rows.Rows,
    choice: Choice,
    reading: FileReading,
    line: str,
    again: Callable[[list[str]], rows.Rows] | None = None,
) -> Iterator[Document]:
    """The documents of rows; `again` reads them anew with the named fields only, where that is cheaper."""
    first = list(islice(values, fields.SAMPLE))
    if not first:
        return
    sample = [(where := f"{path}, {line} {number}", fields.as_row(value, where)) for number, value in first]
    name = reading.field = fields.choose(sample, path, choice.field, (choice.topic, choice.column))
    topic = choice.topic or "topic"
    for column in filter(None, (choice.topic, choice.column)):
        if not any(column in row for _, row in sample):
            known = ", ".join(dict.fromkeys(name for _, row in sample for name in row))
            raise InterpError(f"{path} has no column {column!r}. Its columns are {known}; write #column=value.")
    needed = [name, "title", topic, choice.column]
    for number, value in again(needed) if again else chain(first, values):
        where = f"{path}, {line} {number}"
        row = fields.as_row(value, where)
        if choice.column and str(row.get(choice.column, "")) != choice.value:
            continue
        text = row.get(name)
        if not isinstance(text, str | None):
            raise fields.wrong_kind(where, name, text, f"name a field of strings, such as {path}#content.")
        if text is None or not text.strip():
            reading.no_text += 1
            continue
        reading.documents += 1
        title = _word(row.get("title")) or f"{source}:{number}"
        yield Document(text=_sound(text, where), source=source, title=title, topic=_word(row.get(topic)), own=True)


def _sound(text: str, where: str) -> str:
    """The text; InterpError when it holds what no UTF-8 text can."""
    if "\0" in text:
        raise InterpError(f"{where}: a NUL character in the text; take it out first.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise InterpError(
            f"{where}: half a character ({half}, a lone surrogate) in the text; write the whole one."
        ) from None
    return text


def _word(value: Any) -> str:
    """A title or topic as text, whatever it is."""
    if value is None or isinstance(value, dict | list | bytes):
        return ""
    return str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


# ---- the hub ----


def _hub(name: str, wanted: str, choice: Choice) -> Corpus:
    repo, _, split = wanted.partition(":")

    def streamed() -> rows.Rows:
        try:
            import datasets

            yield from enumerate(datasets.load_dataset(repo, split=split or "train", streaming=True), 1)
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InterpError(f"cannot read the hub's data set {repo!r}: {first}") from error

    def read(file: str, reading: FileReading) -> Iterator[Document]:
        return _documents(file, f"hf:{wanted}", streamed(), choice, reading, "row")

    corpus = _corpus(name, "a data set on the hub, in its order", [Path(repo).name], read, {})
    return replace(corpus, licence="see its page on the hub")
