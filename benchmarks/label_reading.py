"""Names beside the automatic descriptions they take the place of, judged by readers who do not know which is which.

    python benchmarks/label_reading.py draw SAE --into reading --features 60 --seed 7
    python benchmarks/label_reading.py count reading/key.csv reading/ana.csv reading/ben.csv
    python benchmarks/label_reading.py table SAE reading/key.csv reading/ana.csv reading/ben.csv --into docs/names.md

`draw` writes features.md (examples as in meaning_reading.py, then two sentences, A and B, in an order drawn for each feature),
reader.csv, which each reader copies and fills in alone, and key.csv, which says which one is the name and what its test gave.
A feature without a name has the description only, and counts against the names. A reader says of each sentence whether
it is true of most of the examples, strong and weak (yes or no), and which of the two tells better what the feature is (a, b or
neither). `count` prints shares with Wilson's intervals, and a sign test over features of which one is better. `table` writes
all of it beside examples of text that may be passed on: the strongest, and one of the middle fifth.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from meaning_reading import drawn, page
from scipy.stats import binomtest

from interp.evidence.labels import PART
from interp.index import Example, FeatureIndex
from interp.statistics import wilson
from interp.types import InterpError
from interp.workbench import Workbench

COLUMNS = ("feature", "a", "b", "better")
NONE = "(none)"
SHOWN = 8
"""Tokens to either side in the table."""
AGREES, BETTER = ("yes", "no"), ("a", "b", "neither")


def draw(sae: str, into: Path, count: int, seed: int) -> None:
    """Write features.md, reader.csv and key.csv."""
    wb = Workbench.open(sae)
    shown = FeatureIndex.open(wb.folder / "index")  # what everybody has
    features = drawn(shown, count, seed)
    table = wb.evidence.table
    names, claims, verdicts = (table[PART.own[name]].to_pylist() for name in ("name", "claim", "verdict"))
    order, pages, key = np.random.default_rng(seed), [], []
    for feature in features:
        name = f"{names[feature]}" if claims[feature] else NONE
        pair = [("name", name), ("description", shown.describe(feature))]
        if order.random() < 0.5:
            pair.reverse()
        pages.append(
            page(shown, feature) + "\n" + "".join(f"{ab}: {said}\n\n" for ab, (_, said) in zip("AB", pair, strict=True))
        )
        key.append((feature, *(which for which, _ in pair), verdicts[feature]))
    into.mkdir(parents=True, exist_ok=True)
    head = f"# {len(features)} features drawn with seed {seed}, with two sentences each\n\n"
    (into / "features.md").write_text(head + "\n".join(pages), encoding="utf-8")
    _write(into / "reader.csv", COLUMNS, [(feature, "", "", "") for feature in features])
    _write(into / "key.csv", ("feature", "a", "b", "verdict"), key)
    print(f"{into}: {len(features)} features of {wb.card.name}")


def _write(path: Path, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def _read(path: Path) -> dict[int, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {
            int(row["feature"]): {name: (said or "").strip() for name, said in row.items()}
            for row in csv.DictReader(file)
        }


def judged(reading: Path, key: dict[int, dict[str, str]]) -> dict[int, dict[str, str]]:
    """By feature, what the reader says of the name and of the description, and which is better.

    Raises InterpError for a row that is not filled in.
    """
    found = {}
    for feature, row in _read(reading).items():
        if row["a"] not in AGREES or row["b"] not in AGREES or row["better"] not in BETTER:
            raise InterpError(
                f"{reading}, feature {feature}: write yes or no under a and b, and a, b or neither under better."
            )
        which = {key[feature]["a"]: "a", key[feature]["b"]: "b"}
        better = next((kind for kind, letter in which.items() if letter == row["better"]), "neither")
        found[feature] = {kind: row[letter] for kind, letter in which.items()} | {"better": better}
    return found


def count(key_file: Path, readings: list[Path]) -> None:
    """Print what each reader says."""
    key = _read(key_file)
    for path in readings:
        said = judged(path, key)
        for some, whose in ((set(said), "all"), ({f for f in said if key[f]["verdict"] == "confirmed"}, "confirmed")):
            rows = [said[feature] for feature in sorted(some)]
            if not rows:
                continue
            agrees = {kind: sum(row[kind] == "yes" for row in rows) for kind in ("name", "description")}
            better = {kind: sum(row["better"] == kind for row in rows) for kind in ("name", "description", "neither")}
            told = ", ".join(f"{kind} true of {n} ({_share(n, len(rows))})" for kind, n in agrees.items())
            decided = better["name"] + better["description"]
            p = binomtest(better["name"], decided).pvalue if decided else 1.0
            print(f"{path.stem}, {whose} {len(rows)}: {told}; better: {better}, sign test p {p:.2g}")


def table(sae: str, key_file: Path, readings: list[Path], into: Path) -> None:
    """Write a Markdown page of the features, their two sentences, two examples, and what each reader says."""
    wb, key = Workbench.open(sae), _read(key_file)
    shown = FeatureIndex.open(wb.folder / "index")
    said = [judged(path, key) for path in readings]
    rows = wb.evidence.table.take(list(key)).to_pylist()
    lines = [
        f"# {len(key)} features drawn at random, and what they are called",
        "",
        f"`python benchmarks/label_reading.py` ([labels.md](labels.md)); the readers are {' and '.join(path.stem for path in readings)}. "
        "Of each sentence: whether they call it true of most examples; then which one they call the better.",
        "",
        "| feature | name | verdict; F1 | description of before | examples, strong and middling | name true | description true | better |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for feature, row in zip(key, rows, strict=True):
        f1 = row[PART.own["f1"]]
        cells = [
            str(feature),
            row[PART.own["name"]] or NONE,
            row[PART.own["verdict"]] + (f"; {f1:.2f}" if f1 is not None else ""),
        ]
        cells += [shown.describe(feature), "<br>".join(_examples(shown, feature))]
        cells += [", ".join(one[feature][what] for one in said) for what in ("name", "description", "better")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    into.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _examples(index: FeatureIndex, feature: int) -> list[str]:
    """One of the strongest, and one of the middle fifth, of documents that may be passed on."""
    passes_D = index.documents["passes_on"].to_numpy()
    some = [one for one in index.examples(feature, SHOWN) if passes_D[index.document_at[one.position]]]
    found = [next((one for one in some if one.band == band), None) for band in (0, 3)]
    return [_around(one) for one in found if one is not None]


def _around(one: Example) -> str:
    marked = [f"«{token}»" if number == one.peak else token for number, token in enumerate(one.tokens)]
    text = "".join(marked).replace("\n", "↵").replace("`", "ˋ")
    return f"{one.value:.0f} `{text}`"


def _share(hits: int, of: int) -> str:
    share, low, high = wilson(hits, of)
    return f"{share:.0%}, {low:.0%} to {high:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    drawing = tasks.add_parser("draw")
    drawing.add_argument("sae")
    drawing.add_argument("--into", type=Path, default=Path("reading"))
    drawing.add_argument("--features", type=int, default=60)
    drawing.add_argument("--seed", type=int, default=7)
    counting = tasks.add_parser("count")
    counting.add_argument("key", type=Path)
    counting.add_argument("readings", type=Path, nargs="+")
    showing = tasks.add_parser("table")
    showing.add_argument("sae")
    showing.add_argument("key", type=Path)
    showing.add_argument("readings", type=Path, nargs="+")
    showing.add_argument("--into", type=Path, required=True)
    given = parser.parse_args()
    try:
        if given.task == "table":
            table(given.sae, given.key, given.readings, given.into)
        elif given.task == "draw":
            draw(given.sae, given.into, given.features, given.seed)
        else:
            count(given.key, given.readings)
    except InterpError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
