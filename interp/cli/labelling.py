"""Labels on the command line."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.app import REQUIRED, Asked, Typed, app, register
from interp.commands import EMBEDDED
from interp.commands.labelling import in_words
from interp.render.terminal import table, tell
from interp.render.words import counted

if TYPE_CHECKING:
    from interp.commands.labelling import Autolabelled, Imported, Label, Merge, ModelNames, Transfer

labels = typer.Typer(
    help="Take back what was said last; many labels from a file, to one, out of another book, or from one SAE to another.",
    no_args_is_help=True,
)
app.add_typer(labels, name="labels")

COLUMNS = ("feature", "label", "author", "note", "status", "created")
MARKS: "dict[str, Callable[[Label], str]]" = {
    "tags": lambda label: " ".join(label.tags),
    "star": lambda label: "★" if label.starred else "",
    "method": lambda label: label.method,
    "predicate": lambda label: label.predicate,
}
"""Columns that stand there only where one of the revisions has something in them."""
SHOWN = 20
"""Labels of a run that are printed."""
SAE_OR_FILE = Annotated[
    str, typer.Argument(metavar="[SAE] FILE", help="Folder of a checkpoint (without: the embedded SAE), then the file.")
]
SECOND = Annotated[str, typer.Argument(hidden=True)]


def _names(versions: "list[Label]", _: Asked) -> None:
    rows = [
        [v.feature, in_words(v), v.author, v.note, v.status, v.created, *(show(v) for show in MARKS.values())]
        for v in versions
    ]
    head = [*COLUMNS, *MARKS]
    shown = [i for i, name in enumerate(head) if name in COLUMNS or any(row[i] for row in rows)]
    table([head[i] for i in shown], [[row[i] for i in shown] for row in rows])


def _autolabelled(done: "Autolabelled", asked: Asked) -> None:
    rows = [
        [
            each.feature,
            each.name,
            each.claim,
            each.verdict,
            "" if each.f1 is None else f"{each.f1[0]:.2f}",
            each.outcome,
        ]
        for each in done.labels[: None if asked["wide"] else SHOWN]
    ]
    if rows:
        head = ["feature", "name", "claim", "verdict", "F1", "in the book"]
        table(head, rows, shorten=("name", "claim"), drop=("claim",), wide=asked["wide"])
    if len(rows) < len(done.labels):
        tell(f"… and {len(done.labels) - len(rows):,} more (--wide shows all)")
    tell(
        f"{counted(done.asked, 'feature')}, {len(done.labels):,} with a claim ({_listed(done.methods)}); {_listed(done.verdicts)}"
    )
    if done.tested_on:
        tell(f"tried {done.tested_on}; each with another feature's claim: {_listed(done.shuffled)}")
    if done.lacks:
        tell(done.lacks)
    outcomes = _listed({name: number for name, number in done.outcomes.items() if number}) or "nothing to write"
    tell(f"nothing was written; it would be: {outcomes}" if done.dry_run else f"in the book: {outcomes}")


def _explained(done: "ModelNames", asked: Asked) -> None:
    if done.first_prompt:
        tell(done.first_prompt)
    shown = done.names if asked["wide"] else done.names[:SHOWN]
    rows = [
        [
            each.feature,
            each.name,
            each.claim,
            each.tried,
            each.verdict,
            "" if each.figure is None else f"{each.figure[0]:.2f}",
            each.outcome,
        ]
        for each in shown
    ]
    if rows:
        head = ["feature", "name", "rule", "tried", "verdict", "figure", "in the book"]
        table(head, rows, shorten=("name", "rule"), drop=("rule", "tried"), wide=asked["wide"])
    if len(rows) < len(done.names):
        tell(f"… and {len(done.names) - len(rows):,} more (--wide shows all)")
    for line in _said_of(done):
        tell(line)


def _said_of(done: "ModelNames") -> Iterator[str]:
    """What a run did and did not do, a sentence each."""
    people = (
        f"; {counted(done.of_people, 'feature')} keep the name that a person gave or took back"
        if done.of_people
        else ""
    )
    if done.answers:
        yield (
            f"{counted(done.asked, 'feature')} to {done.model}: {counted(len(done.names), 'name')}, "
            f"{counted(done.unparsable, 'answer')} without a name that can be read, {counted(done.misread_rules, 'rule')} that cannot{people}"
        )
        yield f"every prompt and answer is in {done.kept}"
    else:
        yield f"nothing was asked; {counted(done.asked, 'question')} of about {done.tokens:,} tokens in all would be, to {done.model}{people}"
    if done.judgements:
        yield f"{counted(done.judgements, 'answer')} about texts, {done.unparsable_judgements:,} of which cannot be read"
    if done.without_text:
        yield f"{counted(done.without_text, 'feature')} not asked about: no firing in text that may be shown"
    if done.left_out:
        yield f"{counted(done.left_out, 'firing')} in text that may not be passed on were not shown (--send-withheld sends them)"
    yield from done.lacks


def _listed(counts: "Mapping[str, int]") -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _imported(done: "Imported", asked: Asked) -> None:
    same = f"; {done.same:,} were there already" if done.same else ""
    tell(f"{counted(done.added, 'label')} added from {asked['file']}{same}")


def _exported(count: int, asked: Asked) -> None:
    tell(f"{counted(count, 'label')} in {asked['file']}")
    if asked["form"] == "neuronpedia":
        tell(
            "notes, status, dates, tags, stars and predicates are not in it: Neuronpedia's explanations have no place for them"
        )


def _merged(done: "Merge", asked: Asked) -> None:
    moved = [each for each in done.labels if each.outcome != "there already"]
    rows = [[m.feature, m.ours.text if m.ours else "", m.theirs.text, m.holds.text, m.outcome, m.why] for m in moved]
    if rows:
        head = ["feature", "ours", "theirs", "holds then", "", "why"]
        table(head, rows, shorten=("ours", "theirs", "holds then", "why"), drop=("holds then",), wide=asked["wide"])
    outcomes = Counter(each.outcome for each in done.labels)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    tell(f"{counted(len(done.labels), 'feature')} in {done.other}: {told}")
    if done.written:
        tell(
            f"{counted(done.written, 'revision')} written; `interp labels undo {asked['sae']} NUMBER` takes a step back"
        )
    elif moved:
        tell("nothing was written; with --write, both sides are kept, and what holds then holds")


def _transferred(done: "Transfer", asked: Asked) -> None:
    head = ["old", "new", "label", "cosine", "firing", "of old", "of new", "", "why"]
    rows = []
    for each in done.labels:
        match = each.match
        figures = [f"{x:.2f}" for x in (match.cosine, match.correlation, match.of_old, match.of_new)]
        rows.append([match.feature, match.match, each.label.text, *figures, each.outcome, each.why])
    table(head, rows, shorten=("label", "why"), drop=("of new", "of old"), wide=asked["wide"])
    outcomes = Counter(each.outcome for each in done.labels)
    carried = outcomes.pop("carried", 0)
    others = "".join(f", {count:,} {outcome}" for outcome, count in outcomes.items())
    tell(
        f"of {counted(len(done.labels), 'label')} {carried:,} carried{others}; compared on {done.positions:,} tokens of {done.text}"
    )
    if done.seldom:
        tell(f"{counted(done.seldom, 'feature')} too seldom there to be judged; --tokens takes more of the text")
    if done.written:
        tell(f"{counted(done.written, 'label')} written; `interp label {done.new} NUMBER ''` withdraws one")
    elif carried:
        tell("nothing was written; with --write, the carried ones are")


ONE_OR_TWO = {
    "sae": Typed(SAE_OR_FILE, REQUIRED, lambda sae, typed: sae if typed["file"] else EMBEDDED),
    "file": Typed(SECOND, "", lambda file, typed: Path(file or typed["sae"])),
}
"""[SAE] FILE: one word is the file."""

register("label", _names, "interp label SAE 1234 'European capitals' --author me")
register(
    "autolabel", _autolabelled, "interp autolabel SAE --limit 500 --dry-run", face=("as_json", "wide", "background")
)
register(
    "explain",
    _explained,
    "interp explain SAE --llm interp/smollm2 --limit 5",
    face=("as_json", "wide", "background"),
)
register("undo", _names, "interp labels undo SAE 1234", command="undo_label", of=labels)
register(
    "import",
    _imported,
    "interp labels import SAE names.csv --author me",
    command="import_labels",
    of=labels,
    typed=ONE_OR_TWO,
    face=(),
)
register(
    "export",
    _exported,
    "interp labels export SAE names.jsonl",
    command="export_labels",
    of=labels,
    typed=ONE_OR_TWO,
    face=(),
)
register(
    "merge",
    _merged,
    "interp labels merge SAE theirs.sqlite",
    command="merge_labels",
    of=labels,
    face=("as_json", "wide"),
)
register(
    "transfer",
    _transferred,
    "interp labels transfer saes/old saes/new",
    command="transfer_labels",
    of=labels,
    face=("as_json", "wide"),
)
