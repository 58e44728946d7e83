"""Labels for many features without a person: names proposed, tried on documents kept for it, and written into the label book.

1. Names are proposed (`propose.proposing`) from training and held-out documents, BATCH features at a time; each batch is a file.
2. They are tried (`testing`) on the testing documents, all together, for each is the others' null; what came out is a file.
   Of fewer features than FEWEST as many others, that fire about as often, are tried with them, and not written.
3. They go into the book, WRITTEN labels in one transaction. A label that a person gave, changed or took back stays.
4. Where each of them holds (`scope`), by language, form and source, is found out for the evidence; each batch is a file.

The files lie in a folder that is named by what they follow from (weights, index, method), so that a run that was killed goes on
where it was and one that is called again finds all of it done.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp import places
from interp.labels.book import LabelBook
from interp.labels.label import STATUSES, Label, checked, revised, said
from interp.labels.propose.proposing import Proposal, Proposer
from interp.labels.scope import Scope, parts, scope
from interp.labels.testing import Fired, Ground, try_labels
from interp.labels.testing import Label as Claimed
from interp.predicates import read_claim
from interp.progress import bar
from interp.types import InterpError

VERSION = 2
"""Of the method: whoever changes what is proposed or how it is tried counts on, so that nothing of before is taken for it."""
AUTHOR, METHOD = "autolabel", "auto:"
BATCH, WRITTEN = 256, 1024
"""Features of a file of names, and of a transaction."""
FEWEST = 100
"""Labels that are tried together at least: a null of fewer confirms nothing."""
STATUS = {"confirmed": "confirmed", "refuted": "refuted", "undecided": "undecided"}
"""Of a verdict; what could not be judged is proposed."""
WITHDRAWN = "withdrawn: no claim explains this feature"
OUTCOMES = ("written", "the same", "withdrawn", "a person's", "taken back", "tried before")
NOT_TRIED = "not tried"
"""How what is said of a label that nothing could be tried on begins."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A proposal and what became of it."""

    proposal: Proposal
    figures: Mapping[str, Any]
    """What `testing.try_labels` gives; empty where it was not tried."""
    text: str = ""
    """What it was tried on, in words; or why it was not."""

    @property
    def verdict(self) -> str:
        """confirmed, refuted, undecided, too few; empty where it was not tried."""
        return str(self.figures.get("verdict", ""))

    @property
    def status(self) -> str:
        return STATUS.get(self.verdict, "proposed")

    @property
    def note(self) -> str:
        """What the label rests on; it begins with the status, by which it is known that nobody has changed that since."""
        above = f"above {self.proposal.level:.3g}" if self.proposal.level else "at all its firings"
        if not self.figures:
            return f"{self.status}: {above}; {self.text}"
        if self.verdict == "too few":
            return f"{self.status}: {above}; too few firings to judge ({self.figures['fires']} {self.text})"
        f1, nulls = self.figures["f1"], (self.figures["null_shuffled"], self.figures["null_matched"])
        return (
            f"{self.status}: {above}, F1 {interval(f1)} {self.text}; precision {interval(self.figures['precision'])}, "
            f"recall {interval(self.figures['recall'])}; 95th percentile of other claims {nulls[0]:.2f}, of other features "
            f"{nulls[1]:.2f}; q {self.figures['q']:.2g}"
        )


def level_said(note: str) -> float | None:
    """The level that a note of `Tested.note` says, to its three digits; None where it says none."""
    said = re.match(rf"(?:{'|'.join(STATUSES)}): (?:above (\d[\d.e+-]*)|at all its firings)[,;]", note)
    return None if said is None else float(said[1] or 0.0)


def interval(figure: Sequence[float]) -> str:
    """A figure with the ends of its interval."""
    value, low, high = figure
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


# ---- names and tests, kept as files ----


@dataclass(frozen=True)
class Run:
    """A run's folder; whoever works in it holds it (`places.only_one`)."""

    folder: Path

    @staticmethod
    def of(root: Path, follows_from: Mapping[str, Any]) -> "Run":
        """The run whose names and tests follow from these."""
        written = json.dumps({"version": VERSION, **follows_from}, sort_keys=True)
        return Run(root / hashlib.sha256(written.encode()).hexdigest()[:32])

    def proposals(self, proposer: Proposer, features: Sequence[int]) -> dict[int, Proposal]:
        """What is proposed for these features; those that nothing explains are left out."""
        found: dict[int, Proposal | None] = {}
        batches: dict[int, list[int]] = {}
        for feature in sorted(features):
            batches.setdefault(feature // BATCH, []).append(feature)
        with bar("names", len(features), "features") as step:
            for batch, wanted in batches.items():
                path = self.folder / f"names-{batch:06}.json"
                kept = _kept_proposals(path)
                missing = [feature for feature in wanted if feature not in kept]
                if missing:
                    kept |= dict(zip(missing, proposer.propose_batch(missing), strict=True))
                    with places.whole_file(path) as partial:
                        places.write_json(partial, {str(f): one and asdict(one) for f, one in sorted(kept.items())})
                found |= {feature: kept[feature] for feature in wanted}
                step(len(wanted))
        return {feature: one for feature, one in sorted(found.items()) if one is not None}

    def rows(
        self,
        proposals: Mapping[int, Proposal],
        ground: Ground,
        fired: Callable[[int], tuple[np.ndarray, np.ndarray]],
        near: Mapping[int, Sequence[int]],
    ) -> dict[int, dict[str, Any]]:
        """How each did, tried together."""
        name = hashlib.sha256(json.dumps([asdict(one) for one in proposals.values()]).encode()).hexdigest()[:16]
        path = self.folder / f"tests-{name}.json"
        kept = None
        with suppress(InterpError):
            kept = places.read_json(path)
        if kept is None:
            claimed = [
                Claimed(feature=one.feature, claim=read_claim(one.claim), level=one.level) for one in proposals.values()
            ]
            kept = try_labels(claimed, ground, fired, {feature: near.get(feature, ()) for feature in proposals})
            with places.whole_file(path) as partial:
                places.write_json(partial, kept)
        return {row["feature"]: _finite(row) for row in kept}

    def scopes(
        self,
        tested: Mapping[int, "Tested"],
        ground: Ground,
        fired: Callable[[int], tuple[np.ndarray, np.ndarray]],
    ) -> dict[int, list[Scope]]:
        """Where each label holds, of those that could be judged."""
        of = parts(ground.text)
        found: dict[int, list[Scope]] = {}
        batches: dict[int, list[int]] = {}
        for feature, one in sorted(tested.items()):
            if one.verdict in STATUS:
                batches.setdefault(feature // BATCH, []).append(feature)
        with bar("where labels hold", sum(map(len, batches.values())), "labels") as step:
            for batch, wanted in batches.items():
                claims = json.dumps([asdict(tested[feature].proposal) for feature in wanted])
                path = self.folder / f"scopes-{batch:06}-{hashlib.sha256(claims.encode()).hexdigest()[:16]}.json"
                kept = _kept_scopes(path)
                if kept is None:
                    kept = {feature: _scope(tested[feature].proposal, ground, fired, of) for feature in wanted}
                    with places.whole_file(path) as partial:
                        places.write_json(partial, {str(f): [asdict(one) for one in each] for f, each in kept.items()})
                found |= kept
                step(len(wanted))
        return found


def tried(
    run: Run, proposer: Proposer, asked: Sequence[int], fires_F: np.ndarray, near: Callable[[int], Sequence[int]]
) -> dict[int, Tested]:
    """Labels proposed and tried, of those features that a claim is found for; of more than were asked for where these are few.

    `fires_F` says how often each feature fires, `near` which are nearest to one. Raises InterpError when the text has no documents of a
    split that this needs, or another process is at work on the same run.
    """
    if not len(proposer.heldout_P):
        raise InterpError("the index has no text of the split heldout, on which labels are chosen; index more text.")
    ground = Ground(proposer.text, seed=proposer.seed)
    on = f"on {len(ground.position_P):,} tokens of {ground.documents:,} documents that it was not made from"
    with places.only_one(run.folder, "autolabel"):
        places.drop_partials(run.folder)
        proposals = run.proposals(proposer, companions(asked, fires_F))
        rows = run.rows(proposals, ground, proposer.fired, {feature: near(feature) for feature in proposals})
    return {feature: Tested(proposal=one, figures=rows[feature], text=on) for feature, one in proposals.items()}


def scoped(run: Run, proposer: Proposer, tested: Mapping[int, Tested]) -> dict[int, list[Scope]]:
    """By language, form and source, where the labels that could be judged hold.

    Raises InterpError when another process is at work on the same run.
    """
    with places.only_one(run.folder, "autolabel"):
        places.drop_partials(run.folder)
        return run.scopes(tested, Ground(proposer.text, seed=proposer.seed), proposer.fired)


def _scope(
    one: Proposal,
    ground: Ground,
    fired: Callable[[int], tuple[np.ndarray, np.ndarray]],
    of: Mapping[str, tuple[Sequence[str], np.ndarray]],
) -> list[Scope]:
    return scope(
        Fired.of(one.feature, fired(one.feature), one.level, ground), ground.holds(read_claim(one.claim)), ground, of
    )


def _kept_scopes(path: Path) -> dict[int, list[Scope]] | None:
    """What a batch's file holds; None where it has to be made."""
    with suppress(InterpError, TypeError, ValueError, AttributeError):
        raw = _finite(places.read_json(path))
        figures = ("precision", "recall")
        return {
            int(feature): [Scope(**(one | {name: tuple(one[name]) for name in figures})) for one in each]
            for feature, each in raw.items()
        }
    return None


def _kept_proposals(path: Path) -> dict[int, Proposal | None]:
    """What a batch's file holds; nothing where there is none, or it is not as it was written: it can be made again."""
    with suppress(InterpError, TypeError, ValueError, AttributeError):
        raw = places.read_json(path)
        return {int(feature): Proposal(**one) if one else None for feature, one in raw.items()}
    return {}


def _finite(value: Any) -> Any:
    """Null, as JSON has it, is what could not be measured."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return math.nan if value is None else value


def companions(features: Sequence[int], fires_F: np.ndarray) -> list[int]:
    """The features, and, of fewer than FEWEST, as many more as are missing of those that fire most nearly as often."""
    asked = np.unique(np.asarray(features, dtype=np.int64))
    missing = FEWEST - len(asked)
    if missing <= 0 or not len(asked):
        return [int(feature) for feature in asked]
    log_F = np.log(np.maximum(fires_F, 1))
    away_F = np.abs(log_F[:, None] - log_F[asked][None]).min(1)
    others = np.flatnonzero((fires_F > 0) & ~np.isin(np.arange(len(fires_F)), asked))
    return sorted([*asked.tolist(), *others[np.argsort(away_F[others], kind="stable")][:missing].tolist()])


# ---- into the book ----


def write(
    book: LabelBook,
    asked: Sequence[int],
    tested: Mapping[int, Tested],
    *,
    author: str = AUTHOR,
    dry_run: bool = False,
    tried: bool = True,
) -> dict[int, str]:
    """Write labels of the features that were asked for; what became of each (OUTCOMES) comes back.

    Features without a claim lose the automatic label of a run of before. `dry_run` writes nothing. Where
    nothing could be `tried`, a label that was tried before stays.
    """
    outcomes: dict[int, str] = {}
    before = book.histories()
    with bar("labels", len(asked), "features") as step:
        for start in range(0, len(asked), WRITTEN):
            some = asked[start : start + WRITTEN]
            planned = list(_plan(some, tested, before, author, book.d_sae, tried))
            if not dry_run and any(label for _, _, label in planned):
                planned = _written(book, some, tested, author, tried)
            outcomes |= {feature: outcome for feature, outcome, _ in planned}
            step(len(some))
    return outcomes


Planned = tuple[int, str, Label | None]


def _written(
    book: LabelBook, features: Sequence[int], tested: Mapping[int, Tested], author: str, tried: bool
) -> list[Planned]:
    """Plan anew of what holds in the transaction that writes."""
    planned: list[Planned] = []

    def follows(histories: Mapping[int, list[Label]]) -> list[Label]:
        planned[:] = _plan(features, tested, histories, author, book.d_sae, tried)
        return [label for _, _, label in planned if label]

    book.add_after(follows)
    return planned


def _plan(
    features: Sequence[int],
    tested: Mapping[int, Tested],
    histories: Mapping[int, Sequence[Label]],
    author: str,
    d_sae: int,
    tried: bool,
) -> Iterator[Planned]:
    """(feature, outcome, the revision that is to be added) of each that has a claim or had an automatic label."""
    for feature in features:
        one, history = tested.get(feature), histories.get(feature, ())
        if any(label.text for label in history) and not automatic(history):
            if one:
                yield feature, "a person's" if history[-1].text else "taken back", None
            continue
        before = history[-1] if history else None
        if not tried and before is not None and before.text and NOT_TRIED not in before.note:
            yield feature, "tried before", None
            continue
        if one:
            given = {"feature": feature, "text": one.proposal.name, "author": author, "note": one.note}
            given |= {
                "status": one.status,
                "method": METHOD + one.proposal.method,
                "predicate": f"at:({one.proposal.claim})",
            }
        elif before is not None and before.text:
            given = {"feature": feature, "text": "", "author": author, "note": WITHDRAWN}
        else:
            continue
        label = checked(revised(before, given), d_sae)
        if before is not None and said(before) == said(label):
            yield feature, "the same", None
        else:
            yield feature, "written" if one else "withdrawn", label


def hold_back(book: LabelBook, features: Iterable[int], why: str) -> int:
    """Take `confirmed` back from the labels of these features that are as a run wrote them: they are undecided, for this reason.

    How many were held back comes back; what a person wrote or judged stays.
    """

    def follows(histories: Mapping[int, list[Label]]) -> list[Label]:
        held = []
        for feature in features:
            history = histories.get(feature, ())
            if history and automatic(history) and history[-1].status == "confirmed":
                last = history[-1]
                note = f"undecided: {why}; {last.note.removeprefix('confirmed: ')}"
                held.append(
                    checked(revised(last, {"feature": feature, "status": "undecided", "note": note}), book.d_sae)
                )
        return held

    return len(book.add_after(follows))


def automatic(history: Sequence[Label], methods: tuple[str, ...] = (METHOD,)) -> bool:
    """Whether what holds of a feature is as a run by one of these methods wrote it: nobody gave another name, took it for their own,
    judged it otherwise or took it back. Tags and a star are no names."""
    last = history[-1]
    if not (last.method.startswith(methods) if last.text else last.note == WITHDRAWN):
        return False
    first = last
    for label in reversed(history):
        if label.text != last.text:
            break
        first = label
    return last.author == first.author and last.note.startswith(f"{last.status}: ")


def count(names: Sequence[str]) -> dict[str, int]:
    """How many there are of each, most first."""
    return dict(Counter(names).most_common())
