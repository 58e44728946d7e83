"""Features to be read by eye, blind to the measure, and how far readers agree with each other and with it.

    python benchmarks/meaning_reading.py draw INDEX --into reading --features 100 --seed 11
    python benchmarks/meaning_reading.py agree reading/ana.csv reading/ben.csv [--measure meaning.csv]

`draw` writes features.md (examples with their tokens marked; the rubric is in docs/meaning.md) and reader.csv, which each reader
copies and fills in apart. `agree` prints Cohen's kappa with a 95 % bootstrap over features, for the class and for clean or
not, between the readers, and with the table of `interp meaning SAE --table meaning.csv`.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from interp.evals.meaning import CLASSES
from interp.index import Example, FeatureIndex
from interp.statistics import DRAWS, TAILS
from interp.types import InterpError

COLUMNS = ("feature", "named", "clean", "class")
CLEAN = ("yes", "no")
AROUND = 15
"""Tokens of context to either side."""
STRONGEST, OF_A_BAND = 8, 3


def drawn(index: FeatureIndex, count: int, seed: int) -> list[int]:
    """Features that fire at all, drawn by the seed, in the order of the draw."""
    firing = np.flatnonzero(index.features["fires"].to_numpy() > 0)
    return [int(f) for f in np.random.default_rng(seed).choice(firing, min(count, len(firing)), replace=False)]


def page(index: FeatureIndex, feature: int) -> str:
    """A feature's examples in Markdown, strongest first, then some of each fifth of its documents; nothing else is said."""
    lines, shown = [f"## {feature}", ""], index.examples(feature, AROUND)
    for band in range(6):
        some = [example for example in shown if example.band == band][: OF_A_BAND if band else STRONGEST]
        if some:
            lines += [f"{'strongest' if band == 0 else f'band {band}'}", "", *(_line(example) for example in some), ""]
    return "\n".join(lines)


def _line(example: Example) -> str:
    """One example in a line; the peak in «», what else fires underlined by ‗ on both sides, a line's end as ↵."""
    parts = []
    for number, (token, value) in enumerate(zip(example.tokens, example.values, strict=True)):
        text = token.replace("\n", "↵").replace("`", "ˋ")
        parts.append(f"«{text}»" if number == example.peak else f"‗{text}‗" if value > 0 else text)
    return f"- {example.value:.1f} `{''.join(parts)}`"


def draw(folder: str, into: Path, count: int, seed: int) -> None:
    """Write features.md and reader.csv."""
    index = FeatureIndex.open(folder)
    features = drawn(index, count, seed)
    into.mkdir(parents=True, exist_ok=True)
    head = f"# {len(features)} features drawn with seed {seed}\n\nThe rubric is in docs/meaning.md. Read alone, before the measure.\n"
    body = "\n".join(page(index, feature) for feature in features)
    (into / "features.md").write_text(f"{head}\n{body}\n", encoding="utf-8")
    with (into / "reader.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *([feature, "", "", ""] for feature in features)])
    print(f"{into / 'features.md'} and {into / 'reader.csv'}: {len(features)} features of {folder}")


def read_reading(path: Path) -> dict[int, tuple[str, str]]:
    """(clean, class) of each feature; InterpError for a row that is not filled in as the rubric says."""
    found = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            clean, name = ((row.get(column) or "").strip() for column in ("clean", "class"))
            if clean not in CLEAN or name not in CLASSES:
                raise InterpError(
                    f"{path}, feature {row.get('feature')}: clean is {clean!r} and class {name!r}; write yes or no, and one of "
                    f"{', '.join(CLASSES)}."
                )
            found[int(row["feature"])] = clean, name
    return found


def read_measure(path: Path) -> dict[int, tuple[str, str]]:
    """The same of the measure's table, whose `unexplained` are the ones that are not clean."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["feature"]): ("no" if row["class"] == "unexplained" else "yes", row["class"]) for row in rows}


def kappa(one: list[str], other: list[str]) -> float:
    """Cohen's kappa (1960): agreement beyond that of two who say each as often, by chance; nan where they cannot differ."""
    a, b = np.array(one), np.array(other)
    chance = sum(float((a == name).mean() * (b == name).mean()) for name in set(one) | set(other))
    return (float((a == b).mean()) - chance) / (1 - chance) if chance < 1 else float("nan")


def with_interval(one: list[str], other: list[str], seed: int = 0) -> tuple[float, float, float]:
    """(kappa, low, high), features drawn with replacement; draws in which nothing can differ are left out."""
    a, b, draw_by = np.array(one), np.array(other), np.random.default_rng(seed)
    rows = draw_by.integers(0, len(a), (DRAWS, len(a)))
    drawn_kappas = [kappa(a[row].tolist(), b[row].tolist()) for row in rows]
    low, high = np.nanpercentile(drawn_kappas, TAILS)
    return kappa(one, other), float(low), float(high)


def agree(readings: list[Path], measure: Path | None) -> None:
    """Print the agreement of each two."""
    tables = {path.stem: read_reading(path) for path in readings}
    if measure:
        tables["measure"] = read_measure(measure)
    names = list(tables)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = sorted(set(tables[first]) & set(tables[second]))
            if not both:
                raise InterpError(f"{first} and {second} have no feature in common.")
            for column, what in enumerate(("clean", "class")):
                one, other = ([tables[name][feature][column] for feature in both] for name in (first, second))
                value, low, high = with_interval(one, other)
                same = float((np.array(one) == np.array(other)).mean())
                print(
                    f"{first}, {second}: {what}: kappa {value:.2f} ({low:.2f} to {high:.2f}), the same {same:.0%} of {len(both)}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    drawing = tasks.add_parser("draw")
    drawing.add_argument("index")
    drawing.add_argument("--into", type=Path, default=Path("reading"))
    drawing.add_argument("--features", type=int, default=100)
    drawing.add_argument("--seed", type=int, default=11)
    agreeing = tasks.add_parser("agree")
    agreeing.add_argument("readings", type=Path, nargs="+")
    agreeing.add_argument("--measure", type=Path)
    given = parser.parse_args()
    try:
        if given.task == "draw":
            draw(given.index, given.into, given.features, given.seed)
        else:
            agree(given.readings, given.measure)
    except InterpError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
