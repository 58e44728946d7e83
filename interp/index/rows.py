"""Rows of a Parquet file by their numbers."""

from collections import OrderedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEPT = 2
"""Groups of rows that stay decoded: whoever asks for one stretch mostly asks for the next one then."""


class Rows:
    """Some columns of a file; not for several threads at once."""

    def __init__(self, file: pq.ParquetFile, columns: list[str]) -> None:
        self._file, self._columns = file, columns
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._start_G = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()

    def between(self, first: int, last: int) -> pa.Table:
        """The rows from `first` to `last`, this one not among them; at least one."""
        low, high = (int(g) for g in np.searchsorted(self._start_G, [first, last - 1], side="right") - 1)
        parts = []
        for group in range(low, high + 1):
            start = int(self._start_G[group])
            begin, end = max(first - start, 0), min(last - start, int(self._start_G[group + 1]) - start)
            parts.append(self._group(group).slice(begin, end - begin))
        return pa.concat_tables(parts)

    def _group(self, group: int) -> pa.Table:
        if group not in self._kept:
            self._kept[group] = self._file.read_row_groups([group], columns=self._columns)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]
