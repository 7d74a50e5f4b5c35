"""Retrieval data of the Hugging Face hub: a corpus, queries and judgements, each a configuration of a data set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_jv5.data.arrow_cache import cached_rows
from lightning_jv5.data.bad_rows import BadRows, OnBadRow
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.hub import open_hub
from lightning_jv5.data.identified_rows import BadRecordError, Identity, identified_rows, identified_text
from lightning_jv5.data.judgements import JUDGEMENT_COLUMNS, judgement, judgement_schema
from lightning_jv5.data.source import did_you_mean
from lightning_jv5.rebuildable import Plain

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

# Raise it whenever the files change: those cached by older code are then made anew.
_FORMAT = 1
_ROWS_PER_READ = 1000


@dataclass(frozen=True)
class HubTables:
    """Where the tables of a retrieval data set are, and what to do about rows that cannot be used.

    As mteb lays them out: configurations ``corpus`` and ``queries``, and judgements in ``default`` or ``qrels``, or, of
    one of several languages (``de``), ``de-corpus``, ``de-queries`` and ``de-qrels``. Or as BEIR does: judgements are a
    data set of their own (``BeIR/scifact-qrels``). Documents and queries have ``_id`` or ``id``, ``text`` and perhaps
    ``title``; judgements ``query-id``, ``corpus-id`` and ``score``. Ids may be whole numbers. A corpus or queries with
    a single split have that for every split of the judgements. Each table is kept as Arrow in the cache folder.

    Attributes:
        path: Name on the hub or folder.
        qrels_path: That of the judgements; by default the same.
        name: What stands before the names of configurations, such as a language.
        split: Split of the judgements.
        revision: Branch, tag or commit of ``path``.
        on_bad_row: What to do about a row that is broken or comes for the second time.
        max_bad_share: As for :class:`~lightning_jv5.data.bad_rows.BadRows`.
    """

    path: str
    qrels_path: str | None = None
    name: str | None = None
    split: str = "test"
    revision: str | None = None
    on_bad_row: OnBadRow = "error"
    max_bad_share: float = 0.01

    def corpus(self, *, title: bool = True) -> "datasets.Dataset":
        """Return the documents.

        Args:
            title: Whether a document is its title, a space and its text, as BEIR has it; else its text alone.

        Returns:
            Columns ``id`` and ``text``, ``""`` for a document without text.

        Raises:
            ValueError: If the data cannot be had or used; says which row.
        """
        return self._texts(self._split(self.path, ["corpus"]), ("title", "text") if title else ("text",))

    def queries(self, *, group: str | None = None) -> "datasets.Dataset":
        """Return the queries, as :meth:`corpus`; with the column ``group``, of strings or nulls, if one is named."""
        return self._texts(self._split(self.path, ["queries"]), ("text",), group)

    def qrels(self) -> "datasets.Dataset":
        """Return the judgements, with the columns of :func:`~lightning_jv5.data.judgements.judgement_schema`.

        Raises:
            ValueError: As :meth:`corpus`.
        """
        rows, origin = self._split(
            self.qrels_path or self.path, ["qrels"] if self.name else ["default", "qrels"], falls_back=False
        )
        _check_columns(rows, JUDGEMENT_COLUMNS, origin)
        query, document, grade = JUDGEMENT_COLUMNS

        def parse(row: Mapping[str, Any], number: int) -> tuple[Identity, dict[str, Any]]:
            return judgement(_id(row[query], query), _id(row[document], document), row[grade], number)

        return self._cached(rows, origin, list(JUDGEMENT_COLUMNS), judgement_schema(), parse)

    def origin(self, table: str) -> str:
        """Return what messages call a table."""
        path = self.qrels_path or self.path if table == "qrels" else self.path
        return f"{path}, {'-'.join(filter(None, (self.name, table)))}"

    def _texts(
        self, opened: tuple["datasets.Dataset", str], fields: Sequence[str], group: str | None = None
    ) -> "datasets.Dataset":
        import pyarrow as pa

        rows, origin = opened
        identity = "id" if "id" in rows.column_names and "_id" not in rows.column_names else "_id"
        there = [field for field in fields if field != "title" or field in rows.column_names]
        _check_columns(rows, [identity, *there, *([] if group is None else [group])], origin)

        def parse(row: Mapping[str, Any], number: int) -> tuple[Identity, dict[str, Any]]:
            texts = {field: "" if row[field] is None else row[field] for field in there}
            return identified_text({**row, **texts, "_id": _id(row[identity], identity)}, there, group)

        columns = ["id", "text"] if group is None else ["id", "text", "group"]
        read = [identity, *there, *([] if group is None else [group])]
        return self._cached(rows, origin, read, pa.schema({column: pa.string() for column in columns}), parse)

    def _cached(
        self,
        rows: "datasets.Dataset",
        origin: str,
        columns: list[str],
        schema: "pa.Schema",
        parse: Callable[[Mapping[str, Any], int], tuple[Identity, dict[str, Any]]],
    ) -> "datasets.Dataset":
        settings: list[Plain] = [*columns, *schema.names]
        key = fingerprint("hub retrieval", _FORMAT, rows._fingerprint, settings, self.on_bad_row, self.max_bad_share)
        bad = BadRows(origin, self.on_bad_row, self.max_bad_share)
        records = _numbered(rows.select_columns(list(dict.fromkeys(columns))), origin)
        tables = identified_rows(records, parse, schema, bad, unit="row")
        return cached_rows("hub_retrieval", key, schema, lambda: tables)

    def _split(self, path: str, tables: Sequence[str], *, falls_back: bool = True) -> tuple["datasets.Dataset", str]:
        """Return the split of the first table that is there, and what messages call it."""
        names = [table if self.name is None else f"{self.name}-{table}" for table in tables]
        for name in names:
            try:
                splits = open_hub(path, name, revision=self.revision if path == self.path else None)
            except ValueError as error:
                if name == names[-1] or "BuilderConfig" not in str(error):
                    raise
                continue
            break
        if self.split in splits:
            return splits[self.split], f"{path}, {name}, {self.split}"
        if falls_back and len(splits) == 1:
            [only] = splits
            return splits[only], f"{path}, {name}, {only}"
        raise ValueError(
            f"{path}, {name} has no split {self.split!r}; it has {', '.join(splits)}. Name one of them as split."
            f"{did_you_mean(self.split, splits)}"
        )


def _numbered(rows: "datasets.Dataset", origin: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows and their numbers; the first is 0."""
    from tqdm.auto import tqdm

    with tqdm(total=len(rows), desc=f"Reading {origin}", unit="row", unit_scale=True, delay=1) as bar:
        tables = rows.with_format("arrow")
        for start in range(0, len(rows), _ROWS_PER_READ):
            some = tables[start : start + _ROWS_PER_READ].to_pylist()
            yield from enumerate(some, start)
            bar.update(len(some))


def _id(value: Any, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRecordError(f"{column} is {value!r:.40}", "Need a string with something in it, or a whole number.")
    return str(value)


def _check_columns(rows: "datasets.Dataset", columns: Sequence[str], origin: str) -> None:
    for column in columns:
        if column not in rows.column_names:
            raise ValueError(
                f"{origin} has the columns {', '.join(rows.column_names)}; need {column!r}."
                f"{did_you_mean(column, rows.column_names)} Is it a retrieval data set, and the right configuration?"
            )
