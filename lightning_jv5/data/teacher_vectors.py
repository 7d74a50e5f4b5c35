"""Teacher embeddings as columns: computed once, kept as float16 beside the rows, read through memory maps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor
from tqdm.auto import tqdm

from lightning_jv5.data.arrow_cache import write_arrow
from lightning_jv5.data.cache import cache_folder, fingerprint

if TYPE_CHECKING:
    import datasets

# Raise it whenever the files change: those cached by older code are then made anew.
_FORMAT = 1
_ROWS_PER_SHARD = 1024  # what an interrupted pass loses at most
_TEXTS_PER_CALL = 128


class TeacherLike(Protocol):
    """What computes the vectors: :class:`~lightning_jv5.models.Teacher`, or anything like it."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    def encode(self, texts: Sequence[str], role: str) -> Tensor:
        """Embed texts in a role; float32, shape ``(texts, dim)``."""


def add_teacher_vectors(
    rows: "datasets.Dataset",
    teacher: TeacherLike,
    *,
    columns: Mapping[str, str],
    origin: str,
    rank: int = 0,
    ranks: int = 1,
    barrier: Callable[[], object] = lambda: None,
) -> "datasets.Dataset":
    """Add a column ``{column}_teacher`` of float16 vectors for each text column.

    Ranks divide the shards among them. A shard is written whole or not at all, so an interrupted pass continues where
    it stopped, and another run with the same rows and teacher finds everything done.

    Args:
        rows: Rows with the text columns; their fingerprint says whether they are the same as before. A missing text
            (of a row with fewer negatives than others) has a vector of zeros.
        teacher: Computes the vectors.
        columns: From the column's name to the role of its texts.
        origin: Where the rows are from, for the progress bar.
        rank: This process's rank.
        ranks: Number of processes.
        barrier: Waits for all processes; called when this one has done its shards.

    Returns:
        The rows with the new columns: fixed-size lists of float16, memory-mapped.
    """
    from datasets import Dataset, concatenate_datasets

    files = {column: _shard_files(rows, teacher, column, role) for column, role in columns.items()}
    work = [
        (column, file, shard)
        for column, shards in files.items()
        for shard, file in enumerate(shards)
        if shard % ranks == rank and not file.exists()
    ]
    if work:
        total = sum(min(_ROWS_PER_SHARD, len(rows) - shard * _ROWS_PER_SHARD) for _, _, shard in work)
        with tqdm(total=total, desc=f"Teacher vectors of {origin}", unit="text", disable=rank > 0) as bar:
            for column, file, shard in work:
                first = shard * _ROWS_PER_SHARD
                texts = rows.with_format(None)[first : first + _ROWS_PER_SHARD][column]
                _write_shard(file, _encode(texts, teacher, columns[column], bar), texts, teacher.dim)
    barrier()
    vectors = [
        concatenate_datasets([Dataset.from_file(str(file)) for file in shards]).rename_column(
            "vector", f"{column}_teacher"
        )
        for column, shards in files.items()
    ]
    return concatenate_datasets([rows, *vectors], axis=1)


def _shard_files(rows: "datasets.Dataset", teacher: TeacherLike, column: str, role: str) -> list[Path]:
    key = fingerprint("teacher", _FORMAT, rows._fingerprint, teacher.fingerprint, column, role)
    folder = cache_folder() / "teacher" / key
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-len(rows) // _ROWS_PER_SHARD)
    return [folder / f"{shard:05d}-of-{shards:05d}.arrow" for shard in range(shards)]


def _encode(
    texts: Sequence[str | None], teacher: TeacherLike, role: str, bar: tqdm
) -> Iterator[tuple[list[str], Tensor]]:
    """Yield distinct texts and their vectors, a call's worth at a time, the longest first."""
    distinct = sorted(dict.fromkeys(text for text in texts if text is not None), key=len, reverse=True)
    bar.update(len(texts) - len(distinct))
    for start in range(0, len(distinct), _TEXTS_PER_CALL):
        some = distinct[start : start + _TEXTS_PER_CALL]
        yield some, teacher.encode(some, role)
        bar.update(len(some))


def _write_shard(
    file: Path, encoded: Iterator[tuple[list[str], Tensor]], texts: Sequence[str | None], dim: int
) -> None:
    import numpy as np
    import pyarrow as pa

    vector_of: dict[str | None, np.ndarray] = {None: np.zeros(dim, np.float16)}
    for some, vectors in encoded:
        halves = vectors.half()
        if not halves.isfinite().all():
            raise ValueError(
                "The teacher gave a vector that is not finite in float16 for one of "
                f"{len(some)} texts, such as {some[0][:60]!r}. "
                "Check its weights and dtype; nothing of this shard was kept."
            )
        vector_of.update(zip(some, halves.numpy(), strict=True))
    flat = np.stack([vector_of[text] for text in texts]).reshape(-1)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), dim)
    table = pa.table({"vector": column})
    write_arrow(file, table.schema, [table])
