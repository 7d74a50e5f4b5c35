"""From rows as they were read to rows as they are used: their names, a filter, and what becomes of bad ones."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from lightning_jv5.data.bad_rows import BadRows, OnBadRow
from lightning_jv5.data.cache import cache_folder, fingerprint, write_json
from lightning_jv5.data.row_checks import Place, place_among, row_number, usable_rows
from lightning_jv5.data.row_filter import RowFilter
from lightning_jv5.data.source import first_rows, new_names

if TYPE_CHECKING:
    import datasets

_FORMAT = 2  # raise it whenever other rows would be kept, or kept in another way
_ROWS_PER_BLOCK = 20_000  # looked at together, so that memory does not grow with their number


class RowRules:
    """What a source does to the rows that it has read.

    Args:
        columns: From our name (``query``, ``document``, ``text``, ...) to the data set's own.
        filter: A condition on the renamed columns that rows must meet:
            :class:`~lightning_jv5.data.row_filter.RowFilter`.
        rows: How many rows, from the first that are kept; None for all.
        on_bad_row: ``"error"`` or ``"skip"``.
        max_bad_share: Most rows that may be skipped, as a share of all.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        *,
        filter: str | None = None,  # as it is in YAML
        rows: int | None = None,
        on_bad_row: OnBadRow = "error",
        max_bad_share: float = 0.01,
    ) -> None:
        BadRows("", on_bad_row, max_bad_share)
        self._said: set[str] = set()
        self.columns = dict(columns or {})
        self.filter = None if filter is None else RowFilter(filter)
        self.rows, self.on_bad_row, self.max_bad_share = rows, on_bad_row, max_bad_share

    @property
    def skips(self) -> bool:
        """Whether rows that cannot be used are left out rather than an error."""
        return self.on_bad_row == "skip"

    def bad_rows(self, origin: str) -> BadRows:
        """Return a count of the rows of an origin that cannot be used."""
        return BadRows(origin, self.on_bad_row, self.max_bad_share, self._said)

    def apply(self, dataset: "datasets.Dataset", origin: str, place: Place = row_number) -> "datasets.Dataset":
        """Return the rows that are kept, under canonical names; what has been checked once is not checked again.

        Args:
            dataset: Rows as they were read.
            origin: Where they are from, for messages.
            place: How messages name a row.

        Raises:
            ValueError: If columns do not fit, a row cannot be used (unless those are skipped), too many cannot, or
                fewer are left than asked for.
        """
        renaming = new_names(dataset.column_names, self.columns, origin)
        dataset = dataset.rename_columns(renaming) if renaming else dataset
        if self.filter is None and not self.skips:
            dataset = first_rows(dataset, self.rows, origin)
        key = fingerprint(
            *("rows", _FORMAT, dataset._fingerprint, dataset.column_names),
            *(self.filter.expression if self.filter else None, self.on_bad_row, self.max_bad_share),
        )
        checked = cache_folder() / "checked" / f"{key}.json"
        if not checked.exists():
            self._check(dataset, origin, place, checked)
        found = json.loads(checked.read_text())
        bad = self.bad_rows(origin)
        bad.recall(found["skipped"], found["first"])
        bad.finish(len(dataset))
        if found["kept"] < len(dataset):
            dataset = self._kept(dataset, origin, key)
        return first_rows(dataset, self.rows, origin)

    def _check(self, dataset: "datasets.Dataset", origin: str, place: Place, checked: Path) -> None:
        bad, kept = self.bad_rows(origin), 0
        table_rows = dataset.with_format("arrow")
        with tqdm(total=len(dataset), desc=f"Checking {origin}", unit="row", delay=2, leave=False) as bar:
            for start in range(0, len(dataset), _ROWS_PER_BLOCK):
                table = table_rows[start : start + _ROWS_PER_BLOCK]
                kept += len(self._usable(table, bad, place_among(place, range(start, start + len(table)))))
                bar.update(len(table))
        bad.finish(len(dataset))
        if not kept and len(dataset):
            wanted = f"the filter {self.filter.expression!r}" if self.filter else "the checks"
            raise ValueError(f"{origin}: none of {len(dataset)} rows passes {wanted}. Correct it or the data.")
        write_json(checked, {"kept": kept, "skipped": bad.count, "first": bad.first})

    def _kept(self, dataset: "datasets.Dataset", origin: str, key: str) -> "datasets.Dataset":
        from datasets import Features

        rows = dataset.with_format("arrow")
        uncounted = BadRows(origin, self.on_bad_row, 1.0)
        sample = self._usable(rows[: min(len(rows), _ROWS_PER_BLOCK)], uncounted, row_number)
        file = cache_folder() / "kept" / f"{key}.arrow"
        file.parent.mkdir(parents=True, exist_ok=True)
        return rows.map(
            lambda table: self._usable(table, uncounted, row_number),
            batched=True,
            batch_size=_ROWS_PER_BLOCK,
            features=Features.from_arrow_schema(sample.schema),
            cache_file_name=str(file),
            load_from_cache_file=True,
            new_fingerprint=key,
            desc=f"Selecting rows of {origin}",
        ).with_format(None)

    def apply_stream(self, stream: "datasets.IterableDataset", origin: str) -> "datasets.IterableDataset":
        """Return a stream of Arrow tables of the rows that are kept, under canonical names.

        Raises:
            ValueError: As :meth:`apply`, when the rows are read.
        """
        tables = stream.with_format("arrow")
        first = next(iter(tables.iter(batch_size=1)), None)
        if first is None:
            raise ValueError(f"{origin} has no rows; check its files or its split.")
        arrived: list[str] = first.column_names
        renaming = new_names(arrived, self.columns, origin)
        names = [renaming.get(name, name) for name in arrived]
        kept = functools.partial(self._kept_of_stream, names, self.bad_rows(origin))  # loader workers may pickle it
        # Not remove_columns: it would remove those columns from what comes out
        kept_rows = tables.map(kept, batched=True, batch_size=1000, with_indices=True)
        return kept_rows if self.rows is None else kept_rows.take(self.rows)

    def _kept_of_stream(self, names: list[str], bad: BadRows, table: Any, indices: list[int]) -> Any:
        usable = self._usable(table.rename_columns(names), bad, place_among(row_number, indices))
        if indices:
            bad.so_far(indices[-1] + 1)
        return usable

    def _usable(self, table: Any, bad: BadRows, place: Place) -> Any:
        if self.filter is not None:
            import pyarrow.compute as pc

            keep = self.filter(table, bad.origin)
            table, place = table.filter(keep), place_among(place, pc.indices_nonzero(keep).to_numpy())
        return usable_rows(table, bad, place, finite_vectors=self.skips)
