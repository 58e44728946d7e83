"""Read an index: statistics, examples with their context, activations, and how often features fire where.

Axes    N position, F feature, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from interp.checkpoint.shared import located
from interp.checkpoint.trained import UNKNOWN
from interp.corpus.tables import check_parquet, decoding
from interp.index.clean import clean_of
from interp.index.coactive import count_at
from interp.index.files import IndexFiles
from interp.index.format import (
    NEEDED,
    ROWS_PER_GROUP,
    TRAINED_ON,
    WINDOW,
    checker,
    code_type,
    read_meta,
    settle,
)
from interp.index.rows import Rows
from interp.index.wording import distinct, folded, parts_of, quoted
from interp.lenses.lens import LOGIT
from interp.objects import fetch_folder, is_url
from interp.predicates import Clean
from interp.processors import threads
from interp.types import InterpError, check_feature

UNREAD = "▯"
"""A token that is not known on this machine."""
CODES_IN_MEMORY = 1 << 30
"""Bytes of features by position that are kept decoded; larger indexes are decoded anew for each question."""
NAMED, PROMOTED = 4, 3
"""Tokens that a description says a feature fires on, and promotes."""


@dataclass(frozen=True)
class Example:
    """A stretch of text around a position where a feature fires."""

    position: int
    value: float
    band: int
    """0 for the strongest; 1 to 5 for the fifths of the documents the feature fires in, from strong to weak."""
    tokens: list[str]
    values: list[float]
    """The feature's activation at each token; 0 where it is silent."""
    peak: int
    """Which of the tokens `position` is."""
    source: str
    title: str
    split: str
    trained_on: str = UNKNOWN
    """Whether the SAE was trained on the document: `yes`, `no` or `unknown`."""
    unread: str = ""
    """Why its text is not here, and what would bring it; its tokens are then UNREAD."""
    ids: tuple[int, ...] = ()
    """The tokens' ids; none where the text is not here."""


class FeatureIndex(IndexFiles):
    """The index in a folder; opened by `FeatureIndex.open`. Each file's hash is compared when it is first read."""

    @staticmethod
    def open(folder: str | Path) -> "FeatureIndex":
        """The index that `build_index` wrote into a folder, or a copy of one at a URL that fsspec knows.

        Raises InterpError when it is missing, unfinished, of another format, or its description was edited.
        """
        path = fetch_folder(str(folder), "index.json") if is_url(folder) else Path(folder)
        settle(path)
        named = [f"{name}.parquet" for name in NEEDED]
        meta = read_meta(path) if (path / "index.json").exists() else {"files": {}}
        there = {name: located(path, name, str(meta["files"].get(name))) for name in named}
        missing = ["index.json"] if not meta["files"] else [name for name in named if not there[name].exists()]
        if missing:
            raise InterpError(f"there is no index in {path} ({missing[0]} is missing); `interp index SAE` builds one.")
        return FeatureIndex(path, meta, checker(path, meta))

    # ---- how often features fire where (full indexes) ----

    @cached_property
    def _codes(self) -> np.ndarray:
        path = self.path("positions.parquet")
        self._check_positions()
        known = pq.read_metadata(path)
        first = np.cumsum([0] + [known.row_group(i).num_rows for i in range(known.num_row_groups)])
        out = np.empty(int(first[-1]), dtype=code_type(self.d_sae))

        def decode(groups: np.ndarray) -> None:
            at = first[groups[0]]
            file = pq.ParquetFile(path, metadata=known)  # one reader decodes a column in one thread only
            for batch in file.iter_batches(ROWS_PER_GROUP, row_groups=groups.tolist(), columns=["feature"]):
                out[at : at + len(batch)] = batch["feature"].to_numpy()
                at += len(batch)

        shares = np.array_split(np.arange(known.num_row_groups), threads())
        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(decode, [share for share in shares if len(share)]))
        return out

    def _check_positions(self) -> None:
        path = self.path("positions.parquet")
        check_parquet(path, {"feature": "whole", "position": "whole", "value": "real"})
        rows = pq.read_metadata(path).num_rows
        if rows != self.offsets[-1]:
            raise self._other("positions", f"it has {rows:,} rows for {self.offsets[-1]:,} activations")

    def _code_chunks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """(first position, last position + 1, features in order of position), decoded anew when they are many."""
        total, itemsize = int(self.offsets[-1]), np.dtype(code_type(self.d_sae)).itemsize
        if total * itemsize <= CODES_IN_MEMORY:
            yield 0, len(self.offsets) - 1, self._codes
            return
        self._check_positions()
        held, low = np.zeros(0, dtype=code_type(self.d_sae)), 0
        for batch in pq.ParquetFile(self.path("positions.parquet")).iter_batches(1 << 22, columns=["feature"]):
            held = np.concatenate([held, batch["feature"].to_numpy().astype(held.dtype)])
            have = int(self.offsets[low]) + len(held)
            high = int(np.searchsorted(self.offsets, have, side="right")) - 1
            yield low, high, held
            held, low = held[int(self.offsets[high] - self.offsets[low]) :], high

    def fires_at(self, mask_N: np.ndarray) -> np.ndarray:
        """For each feature, at how many of the marked positions it fires, as float64; exact.

        Raises InterpError on an index that keeps examples only.
        """
        if self.partial:
            raise InterpError(
                f"the index in {self.folder} keeps examples only; `interp index SAE` builds the full one."
            )
        if np.count_nonzero(mask_N) > len(mask_N) // 2:  # the rest is fewer
            return self.features["fires"].to_numpy() - self.fires_at(~mask_N)
        count_F = np.zeros(self.d_sae)
        with decoding(self.folder / "positions.parquet"):
            for low, high, codes in self._code_chunks():
                offsets = self.offsets[low : high + 1] - self.offsets[low]
                position = np.flatnonzero(mask_N[low:high])
                for start in range(0, len(position), 1 << 15):  # what is gathered stays in cache
                    count_F += count_at(codes, offsets, position[start : start + (1 << 15)], self.d_sae)
        return count_F

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(features, first row of each; token, count, count above the clean level): how often each feature fires on each
        token."""
        counts = ["count", "clean" if self.has_clean_levels else "count"]
        table = self._table("pairs", dict.fromkeys(("feature", "token", *counts), "whole"))
        feature, start = np.unique(table["feature"].to_numpy(), return_index=True)
        count, clean = (table[name].to_numpy() for name in counts)
        return feature, start, table["token"].to_numpy(), count, clean

    @cached_property
    def clean_above(self) -> np.ndarray:
        """By feature, the activation that a firing must exceed for what it means to be known (see `clean`); below every
        activation where the feature has no clean level, so that all its firings count."""
        if not self.has_clean_levels:
            return np.full(self.d_sae, -np.inf)
        level = self.features["clean_level"].to_numpy().astype(np.float64)
        return np.where(np.isnan(level), -np.inf, level)

    @cached_property
    def clean_fires(self) -> np.ndarray:
        """By feature, how many firings exceed `clean_above`."""
        fires = self.features["fires"].to_numpy().astype(np.float64)
        if not self.has_clean_levels:
            return fires
        share = self.features["clean_share"].to_numpy().astype(np.float64)
        return np.where(np.isinf(self.clean_above), fires, np.rint(share * fires))

    def fires_on(self, matching_V: np.ndarray, *, clean: bool = False) -> np.ndarray:
        """For each feature, how often it fires on the marked tokens, as float64; exact. With `clean`, above its clean level
        (`clean_above`).

        An index that keeps examples only has each feature's strongest tokens: a lower bound.
        """
        if self.partial:
            row, token = self._top_tokens
            hit = matching_V[token[0]]
            return np.bincount(row[hit], weights=token[1 + clean][hit], minlength=self.d_sae)
        feature, start, token_P, *counts = self._pairs
        out = np.zeros(self.d_sae)
        if len(feature):
            out[feature] = np.add.reduceat(counts[clean] * matching_V[token_P], start)
        return out

    def firings(self, feature: int) -> dict[int, int]:
        """How often a feature fires on each token; of an index that keeps examples only, on its strongest 20."""
        if self.partial:
            row = self.row(feature)
            return dict(zip(map(int, row["top_tokens"]), map(int, row["top_token_counts"]), strict=True))
        features, start, token_P, count_P, _ = self._pairs
        at = int(np.searchsorted(features, feature))
        if at == len(features) or features[at] != feature:
            return {}
        own = slice(start[at], start[at + 1] if at + 1 < len(start) else None)
        return dict(zip(token_P[own].tolist(), count_P[own].tolist(), strict=True))

    @cached_property
    def _top_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """(feature, (token, count, count above the clean level)) of every feature's strongest tokens."""
        row = np.repeat(np.arange(self.d_sae), self.features["top_tokens"].map(len))
        names = ("top_tokens", "top_token_counts", "top_token_clean" if self.has_clean_levels else "top_token_counts")
        columns = (np.concatenate(self.features[name].to_numpy()) for name in names)
        return row, np.stack([column.astype(np.int64) for column in columns])

    def fired(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """(positions, values) of a feature's stored activations, ascending."""
        check_feature(feature, self.d_sae, str(self.folder))
        first, last = self._first_row[feature : feature + 2].tolist()
        if first == last:
            return np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.float16)
        with self._lock, decoding(self.folder / "activations.parquet"):
            rows = self._activations.between(first, last)
        return rows["position"].to_numpy(), rows["value"].to_numpy()

    @cached_property
    def _activations(self) -> Rows:
        path = self.path("activations.parquet")
        check_parquet(path, {"feature": "whole", "position": "whole", "value": "real"})
        file = pq.ParquetFile(path, memory_map=True)
        if file.metadata.num_rows != self._first_row[-1]:
            raise self._other("activations", f"it has {file.metadata.num_rows:,} rows for {self._first_row[-1]:,} kept")
        return Rows(file, ["position", "value"])

    @cached_property
    def _first_row(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.features["stored"].to_numpy(), dtype=np.int64)])

    @cached_property
    def neurons(self) -> pd.DataFrame:
        """(layer, neuron, feature, cosine): the features nearest to what each MLP neuron writes."""
        kinds = dict.fromkeys(("layer", "neuron", "feature"), "whole") | {"cosine": "real"}
        return self._table("neurons", kinds).to_pandas()

    def features_near(self, layer: int, neuron: int) -> pd.DataFrame:
        """The rows of `neurons` for one neuron, nearest first."""
        return self.neurons[(self.neurons["layer"] == layer) & (self.neurons["neuron"] == neuron)]

    def clean(self, feature: int) -> Clean | None:
        """What the feature means above its clean level: the simplest predicate that explains where it fires, the level, and
        how often that was true in documents that it was not mined on.

        Above `level` (strictly; 0 is every firing) the predicate holds at 9 of 10 firings of the training split's
        documents; `precision` of `n` says how often on the held-out ones, with its `interval`; `share` is the share of all
        its firings that lie above. None where no predicate explains the feature, and of an index without clean levels
        (`has_clean_levels`). As columns: `features["clean_level"]` (nan where there is none), `clean_share` and so on.
        """
        row = self.row(feature)
        return clean_of(row) if self.has_clean_levels else None

    # ---- what people read ----

    def row(self, feature: int) -> dict[str, Any]:
        check_feature(feature, self.d_sae, str(self.folder))
        return dict(self.features.loc[feature])

    def text(self, tokens: Any) -> list[str]:
        return [self.vocabulary[int(token)] for token in tokens]

    def describe(self, feature: int) -> str:
        """The automatic, untested description: the tokens a feature fires on most, with the share of its firings that are
        on them, and those it promotes."""
        check_feature(feature, self.d_sae, str(self.folder))
        head, tail = self._described_parts(feature)
        fires, tokens, counts = (
            self.features[name].iloc[feature] for name in ("fires", "top_tokens", "top_token_counts")
        )
        if not fires:
            return head + tail
        names = distinct(self.text(tokens), NAMED)
        named = set(map(folded, names))
        on = sum(int(n) for text, n in zip(self.text(tokens), counts, strict=True) if folded(text) in named)
        share = on / int(fires)
        if self.kind == "text":
            return f"{head} ({share:.0%} of its firings){tail}"
        # A feature of places, such as an edge of every picture; others fire on no few of them.
        told = share >= 0.5 and len(self.vocabulary) > 2  # else there is one place
        return f"{head}; {share:.0%} of its firings at {quoted(names)}{tail}" if told else head + tail

    @cached_property
    def descriptions(self) -> list[str]:
        """The automatic description of every feature, without figures; all of them take a quarter of a second."""
        return [self.description(feature) for feature in range(self.d_sae)]

    @cached_property
    def _described(self) -> tuple[list[int], list[Any], dict[str, list[Any]], list[bool]]:
        """What descriptions are made of: how often each feature fires, its tokens, those it promotes (by the lens that was
        judged best, where one was), and which tokens the text has at all."""
        fires, on, says = (self.features[name].tolist() for name in ("fires", "top_tokens", "promoted"))
        lists = {"promotes": says}
        if self.said is not None:
            lists["promotes"] = self.said.lists["next.raised"].tolist()
            if self.said.winner("later") != LOGIT:
                lists["later"] = self.said.lists["later.raised"].tolist()
        return fires, on, lists, (self.token_counts > 0).tolist()

    def description(self, feature: int) -> str:
        """The automatic description of one feature, without figures.

        Raises InterpError when the index has no such feature.
        """
        check_feature(feature, self.d_sae, str(self.folder))
        return "".join(self._described_parts(feature))

    def _described_parts(self, feature: int) -> tuple[str, str]:
        """(what it fires on, what it promotes)."""
        fires, top_tokens, lists, seen = self._described
        if not fires[feature]:
            return "never fires in the index", ""
        tail, words = "", self.vocabulary
        for verb, of in lists.items():
            # A token that the text never has is seldom more than a fragment, and says nothing to a reader.
            known = (words[int(token)] for token in of[feature] if token < len(seen) and seen[int(token)])
            says = distinct(known, PROMOTED)
            tail += f"; {verb} {quoted(says)}" if says else ""
        if self.kind != "text":
            liked = self.preferences.get(feature)
            folder = liked.folder if liked is not None and liked.told else ""
            return f"fires on {parts_of(self.kind, int(self.features['documents'].iloc[feature]), folder)}", tail
        named = distinct((words[int(token)] for token in top_tokens[feature]), NAMED)
        return f"fires on {quoted(named)}", tail

    def times(self, tokens: Any) -> list[int]:
        """How often each of the tokens stands in the indexed text, at positions that count."""
        counts = self.token_counts
        return [int(counts[token]) if token < len(counts) else 0 for token in tokens]

    def examples(self, feature: int, window: int = WINDOW) -> list[Example]:
        """The feature's examples, strongest first, then by band."""
        fired = self.fired(feature)
        start, stop = self.example_rows[0][feature : feature + 2].tolist()
        rows = self._examples.iloc[start:stop]
        columns = (rows[name].tolist() for name in ("position", "value", "band"))
        shown = min(window, WINDOW)
        return [self._example(p, value, band, fired, shown) for p, value, band in zip(*columns, strict=True)]

    def stretches(self, feature: int, positions: Sequence[int], window: int = WINDOW) -> list[Example]:
        """The text around any positions as examples are shown, with what is stored of the feature there; their band is 0."""
        fired = position, value = self.fired(feature)
        place = np.searchsorted(position, positions)
        stored = [p < len(position) and int(position[p]) == at for p, at in zip(place, positions, strict=True)]
        strength = [float(value[p]) if there else 0.0 for p, there in zip(place, stored, strict=True)]
        return [
            self._example(int(p), x, 0, fired, min(window, WINDOW)) for p, x in zip(positions, strength, strict=True)
        ]

    def _example(
        self, position: int, value: float, band: int, fired: tuple[np.ndarray, np.ndarray], window: int
    ) -> Example:
        low, high = self.stretch(position, window)
        values = np.zeros(high - low)
        own = slice(*np.searchsorted(fired[0], [low, high]))
        values[fired[0][own].astype(np.int64) - low] = fired[1][own]
        at, missing = int(self.document_at[position]), bool(self.missing[position])
        kept = (self.documents[name].iat[at] for name in ("source", "title", "split", TRAINED_ON))  # a row takes a ms
        source, title, split, trained_on = map(str, kept)
        return Example(
            position=position,
            value=float(value),
            band=band,
            tokens=[UNREAD] * (high - low) if missing else self.text(self.tokens[low:high]),
            values=values.tolist(),
            peak=position - low,
            source=source,
            title=title,
            split=split,
            trained_on=trained_on,
            unread=self.read_text.why.get(source, "") if missing else "",
            ids=() if missing else tuple(self.tokens[low:high].tolist()),
        )

    def stretch(self, position: int, window: int) -> tuple[int, int]:
        """Positions around one, within its block and document."""
        start = position // self.block * self.block
        low, high = max(start + 1, position - window), min(start + self.block, position + window + 1)
        owner = self.document_at[position]
        while low < position and self.document_at[low] != owner:
            low += 1
        while high - 1 > position and self.document_at[high - 1] != owner:
            high -= 1
        if low < position and int(self.tokens[low]) == self.separator and not self.missing[low]:
            low += 1
        return low, high
