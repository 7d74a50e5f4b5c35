"""Rows written to an Arrow file once, then read through a memory map."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_jv5.data.cache import atomic_file, cache_folder

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


def cached_rows(
    kind: str, key: str, schema: "pa.Schema", tables: Callable[[], Iterable["pa.Table"]]
) -> "datasets.Dataset":
    """Return the rows kept under a key, writing them first where they are not there yet.

    Args:
        kind: Folder inside the cache folder.
        key: Names the rows, and is the data set's fingerprint: the same in every process.
        schema: Of every table.
        tables: Gives the rows, some at a time, so that memory holds no more than that; called only if they are missing.

    Returns:
        The rows, memory-mapped.

    >>> import pyarrow as pa
    >>> rows = cached_rows("doctest", "greetings", schema := pa.schema({"text": pa.string()}), lambda: [
    ...     pa.table({"text": [text]}, schema) for text in ("hello", "good evening")])
    >>> rows["text"][:]
    ['hello', 'good evening']
    """
    file = cache_folder() / kind / f"{key}.arrow"
    if not file.exists():
        write_arrow(file, schema, tables())
    return mapped_rows(file, key)


def mapped_rows(file: Path, key: str) -> "datasets.Dataset":
    """Return the rows of an Arrow file, memory-mapped, with ``key`` as their fingerprint."""
    from datasets import Dataset

    rows = Dataset.from_file(str(file))
    rows._fingerprint = key
    return rows


def write_arrow(file: Path, schema: "pa.Schema", tables: Iterable["pa.Table"]) -> None:
    """Write tables one after the other; the file appears whole or not at all."""
    import pyarrow as pa

    with (
        atomic_file(file) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        for table in tables:
            writer.write_table(table)


class ArrowColumn:
    """One column of rows, read some rows at a time: ``column[4:7]`` or ``column[[1, 5, 2]]`` is an Arrow array.

    >>> from datasets import Dataset
    >>> ArrowColumn(Dataset.from_dict({"text": ["a", "b", "c"]}), "text")[1:].to_pylist()
    ['b', 'c']
    """

    def __init__(self, rows: "datasets.Dataset", column: str) -> None:
        self._column = column
        self._rows = rows.select_columns([column]).with_format("arrow")  # takes milliseconds, so not at every reading

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: slice | list[int]) -> "pa.Array":
        """Return the rows of a slice or a list of numbers."""
        return self._rows[which][self._column].combine_chunks()
