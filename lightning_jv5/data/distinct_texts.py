"""The distinct texts of some columns, each once, and which of them every row holds."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.arrow_cache import ArrowColumn, mapped_rows, write_arrow
from lightning_jv5.data.cache import atomic_folder, cache_folder, fingerprint

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

# Raise it whenever the files change: those cached by older code are then made anew.
_FORMAT = 1
_ROWS_PER_TABLE = 1000


class DistinctTexts(NamedTuple):
    """Texts that differ by more than white space and case.

    Attributes:
        texts: Column ``text``, memory-mapped: each text where it comes first. Its fingerprint is that of the texts
            alone, wherever they are from: the vectors of a corpus serve every set of pairs that is mined in it.
        codes: For each column that was given, the row in ``texts`` of each of its rows; ``-1`` where a text is blank.
        keys: 64-bit hash of each text; equal for two texts that count as one.
    """

    texts: "datasets.Dataset"
    codes: list[NDArray[np.int64]]
    keys: NDArray[np.int64]


def distinct_texts(columns: Sequence[tuple["datasets.Dataset", str]], origin: str) -> DistinctTexts:
    """Find the distinct texts of columns, in the order in which they come, column after column.

    Texts that differ in white space or case alone count as one; blank texts are left out. Done once, then kept in the
    cache folder. Memory holds numbers for each row, never the texts.

    Args:
        columns: Rows, and the column of theirs that holds the texts.
        origin: What the texts are, for progress bars.

    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"text": ["a cat", "a dog", " A  cat", ""]})
    >>> found = distinct_texts([(rows, "text")], "animals")
    >>> found.texts["text"][:], found.codes[0].tolist()
    (['a cat', 'a dog'], [0, 1, 0, -1])
    """
    key = fingerprint("distinct texts", _FORMAT, [[rows._fingerprint, column] for rows, column in columns])
    folder = cache_folder() / "distinct" / key
    if not folder.exists():
        with atomic_folder(folder) as building:
            import pyarrow as pa

            all_keys = np.concatenate([_keys(rows, column, origin) for rows, column in columns])
            codes, first = _first_comes_first(all_keys)
            np.save(building / "codes.npy", codes)
            np.save(building / "keys.npy", all_keys[first])
            schema = pa.schema({"text": pa.string()})
            digest = hashlib.blake2b(digest_size=16)
            write_arrow(building / "texts.arrow", schema, _texts_at(columns, first, schema, digest))
            (building / "texts.fingerprint").write_text(digest.hexdigest())
    codes = np.load(folder / "codes.npy", mmap_mode="r")
    ends = np.cumsum([len(rows) for rows, _ in columns])[:-1]
    texts = mapped_rows(folder / "texts.arrow", (folder / "texts.fingerprint").read_text())
    return DistinctTexts(texts, np.split(codes, ends), np.load(folder / "keys.npy", mmap_mode="r"))


def _key(text: str) -> int:
    plain = " ".join(text.split()).casefold()
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little", signed=True)


_BLANK = _key("")


def _keys(rows: "datasets.Dataset", column: str, origin: str) -> NDArray[np.int64]:
    from tqdm.auto import tqdm

    keys, column_texts = np.empty(len(rows), np.int64), ArrowColumn(rows, column)
    with tqdm(total=len(rows), desc=f"Distinct {origin}", unit="text", delay=1) as bar:
        for start in range(0, len(rows), _ROWS_PER_TABLE):
            texts = column_texts[start : start + _ROWS_PER_TABLE].to_pylist()
            keys[start : start + len(texts)] = [_key(text or "") for text in texts]
            bar.update(len(texts))
    return keys


def _first_comes_first(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number distinct keys as they come: the number of each row, and the row where each number comes first."""
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    is_text = distinct != _BLANK
    order = np.argsort(np.where(is_text, first, len(keys)), kind="stable")[: is_text.sum()]
    number = np.full(len(distinct), -1, np.int64)
    number[order] = np.arange(len(order))
    return number[inverse], first[order]


def _texts_at(
    columns: Sequence[tuple["datasets.Dataset", str]],
    places: NDArray[np.int64],
    schema: "pa.Schema",
    digest: "hashlib.blake2b",
) -> "Iterator[pa.Table]":
    """Yield the texts at ascending places in the columns put one after the other, and add them to a digest."""
    import pyarrow as pa

    offset = 0
    for rows, column in columns:
        column_texts = ArrowColumn(rows, column)
        for start in range(0, len(rows), _ROWS_PER_TABLE):
            stop = min(start + _ROWS_PER_TABLE, len(rows))
            low, high = np.searchsorted(places, [offset + start, offset + stop])
            if high > low:
                texts = column_texts[start:stop].take(pa.array(places[low:high] - offset - start)).cast(pa.string())
                for text in texts.to_pylist():
                    digest.update(fingerprint(text).encode())
                yield pa.table({"text": texts}, schema)
        offset += len(rows)
