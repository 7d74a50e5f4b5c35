"""Embeddings as Arrow columns: lists of a fixed size, written and read without a Python object per number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lightning_jv5.data.packed_codes import pack_signs
from lightning_jv5.data.row_checks import Place, row_number
from lightning_jv5.data.source import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

Precision = Literal["float32", "float16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8", "binary")
SCALE = "_scale"
_INT8_MAX = 127


@dataclass(frozen=True)
class StoredVectors:
    """Embeddings in the numbers in which they are stored.

    Attributes:
        values: Float32, float16 or int8 codes, shape ``(texts, dim)``; or sign bits, uint8, ``(texts, ceil(dim / 8))``.
        scale: What int8 codes are multiplied by, float32, shape ``(texts,)``; None for the others.
    """

    values: Tensor
    scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor) -> "StoredVectors":
        """Return the vectors of these rows, in this order; a row may come several times."""
        return StoredVectors(self.values[rows], None if self.scale is None else self.scale[rows])

    @classmethod
    def cat(cls, parts: Sequence["StoredVectors"]) -> "StoredVectors":
        """Join several of one precision."""
        scales = [part.scale for part in parts if part.scale is not None]
        return cls(torch.cat([part.values for part in parts]), torch.cat(scales) if scales else None)


def store(embeddings: Tensor, precision: Precision) -> StoredVectors:
    """Round embeddings to the numbers in which they are stored.

    Args:
        embeddings: Float32, shape ``(texts, dim)``.
        precision: ``"float32"``, ``"float16"``, ``"int8"`` (one scale per vector) or ``"binary"`` (sign bits).

    Raises:
        ValueError: If the precision is none of these, or the signs of numbers that are not finite are asked for.

    >>> stored = store(torch.tensor([[0.5, -0.25, 0.0]]), "int8")
    >>> stored.values.tolist(), round(stored.scale.item() * 127, 4)
    ([[127, -64, 0]], 0.5)
    """
    if precision == "float32":
        return StoredVectors(embeddings.float())
    if precision == "float16":
        return StoredVectors(embeddings.half())
    if precision == "int8":
        # A zero vector has the codes 0, whatever they are divided by
        scale = embeddings.float().abs().amax(dim=1) / _INT8_MAX
        codes = embeddings.float() / scale.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1)
        return StoredVectors(codes.round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8), scale)
    if precision == "binary":
        return StoredVectors(pack_signs(embeddings))
    raise ValueError(f"Got precision {precision!r}; need one of {', '.join(PRECISIONS)}.")


def arrow_columns(name: str, stored: StoredVectors, counts: Sequence[int] | None = None) -> dict[str, "pa.Array"]:
    """Lay vectors out as columns of a table: lists of a fixed size, and a scale beside int8 codes.

    Args:
        name: Name of the column; the scales are ``{name}_scale``.
        stored: The vectors.
        counts: For a row with several vectors (those of its negatives): how many, for each row. They sum to the number
            of vectors.

    Returns:
        The columns by name.

    Raises:
        ValueError: If the counts do not sum to the number of vectors.

    >>> for column, array in arrow_columns("v", store(torch.eye(2), "int8")).items():
    ...     print(column, array.type)
    v fixed_size_list<item: int8>[2]
    v_scale float
    """
    import numpy as np
    import pyarrow as pa

    if counts is not None and sum(counts) != len(stored):
        raise ValueError(
            f"Got counts that sum to {sum(counts)} for {len(stored)} vectors; need one vector for each. "
            "Count the texts of every row."
        )
    flat = pa.array(stored.values.contiguous().numpy().reshape(-1))
    columns: dict[str, Any] = {name: pa.FixedSizeListArray.from_arrays(flat, stored.values.shape[1])}
    if stored.scale is not None:
        columns[f"{name}{SCALE}"] = pa.array(stored.scale.contiguous().numpy())
    if counts is not None:
        offsets = pa.array(np.cumsum([0, *counts]), pa.int32())
        columns = {column: pa.ListArray.from_arrays(offsets, array) for column, array in columns.items()}
    return columns


def vectors(table: "pa.Table", column: str, place: Place = row_number) -> Tensor:
    """Read the vectors of some rows, straight from Arrow's memory.

    Args:
        table: The rows.
        column: Lists of numbers, all of one length; or lists of such lists (the vectors of each row's negatives).
            Int8 codes need their scales in ``{column}_scale``.
        place: How messages name a row, from its number in ``table``.

    Returns:
        The vectors one after the other, shape ``(vectors, dim)``: float16 and float32 as they are, int8 codes times
        their scale and other floats in float32. A copy, which may be written to.

    Raises:
        ValueError: If the column is not there or holds no vectors, one is missing, shorter than the others or not
            finite (says in which row), or codes lack their scales.

    >>> import pyarrow as pa
    >>> table = pa.table(arrow_columns("query_teacher", store(torch.eye(2), "float16")))
    >>> vectors(table, "query_teacher")
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float16)
    """
    array = _array(table, column)
    rows = _Rows(array, column, depth=1, place=place)
    values = rows.matrix()
    if values.dtype == torch.int8:
        if f"{column}{SCALE}" not in table.column_names:
            raise ValueError(
                f"Column {column!r} holds int8 codes, and there is no {column}{SCALE}; need the scale of every vector. "
                "Keep both columns, as embed wrote them."
            )
        scale = _Rows(_array(table, f"{column}{SCALE}"), f"{column}{SCALE}", depth=0).numbers(len(values))
        values = values.float() * scale.unsqueeze(1)
    elif values.dtype == torch.uint8:
        raise ValueError(
            f"Column {column!r} holds uint8, which are sign bits; need floats, or int8 codes. "
            "Embed again with precision: float16, or read them with sign_bits for a search."
        )
    elif values.dtype not in (torch.float16, torch.float32):
        values = values.float()
    finite = values.isfinite().all(dim=1)
    if not finite.all():
        row = rows.of_vector(int((~finite).nonzero()[0]))
        raise ValueError(
            f"{row}: the vector in column {column!r} is not finite. Remove the row, or embed its text again."
        )
    return values


def sign_bits(table: "pa.Table", column: str) -> Tensor:
    """Read packed sign bits as :func:`~lightning_jv5.data.pack_signs` made them: ``(vectors, ceil(dim / 8))``, uint8.

    Raises:
        ValueError: If the column is not there, holds something else, or lacks a vector.
    """
    codes = _Rows(_array(table, column), column, depth=1).matrix()
    if codes.dtype != torch.uint8:
        raise ValueError(f"Column {column!r} holds {codes.dtype}; sign bits are uint8. Read it with vectors.")
    return codes


def _array(table: "pa.Table", column: str) -> Any:
    import pyarrow as pa

    if column not in table.column_names:
        raise ValueError(
            f"No column {column!r} among {', '.join(table.column_names)}.{did_you_mean(column, table.column_names)} "
            "Embed the texts first, or name the column that holds the vectors."
        )
    found = table.column(column).combine_chunks()
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


class _Rows:
    """A column of which each row has one entry, or a list of them; ``depth`` lists deep is an entry itself."""

    def __init__(self, array: Any, column: str, depth: int, place: Place = row_number) -> None:
        import pyarrow.compute as pc

        self.column, self.place = column, place
        self._parents: Any = None
        self._refuse_null(array)
        if _depth(array.type) > depth:
            self._parents = pc.list_parent_indices(array)
            array = array.flatten()
            self._refuse_null(array)
        if _depth(array.type) != depth or not _is_number(_innermost(array.type)):
            raise ValueError(
                f"Column {column!r} holds {array.type}; need {'lists of numbers' if depth else 'numbers'}. "
                "Name a column of vectors, as embed writes them."
            )
        self.array = array

    def of_vector(self, vector: int) -> str:
        """Name the row of the table that a vector belongs to."""
        return self.place(vector if self._parents is None else int(self._parents[vector].as_py()))

    def matrix(self) -> Tensor:
        """Return lists of one length as the rows of a matrix: a copy, as Arrow's memory is read-only."""
        import pyarrow.compute as pc

        width = self._width()
        flat = self.array.flatten()
        if flat.null_count:
            vector = pc.index(pc.is_null(flat), True).as_py() // width
            raise ValueError(
                f"{self.of_vector(vector)}: the vector in column {self.column!r} has a null in "
                "it; need numbers. Embed its text again, or remove the row."
            )
        return torch.tensor(flat.to_numpy(zero_copy_only=False).reshape(len(self.array), width))

    def numbers(self, count: int) -> Tensor:
        """Return ``count`` numbers, float32."""
        if len(self.array) != count:
            raise ValueError(
                f"Column {self.column!r} holds {len(self.array)} scales for {count} vectors; need one for each. "
                "Embed the texts again."
            )
        return torch.tensor(self.array.to_numpy(zero_copy_only=False), dtype=torch.float32)

    def _width(self) -> int:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_fixed_size_list(self.array.type):
            return int(self.array.type.list_size)
        if not len(self.array):
            return 0
        lengths = pc.list_value_length(self.array)
        width = int(lengths[0].as_py())
        other = pc.index(pc.not_equal(lengths, width), True).as_py()
        if other >= 0:
            raise ValueError(
                f"{self.of_vector(other)}: the vector in column {self.column!r} has "
                f"{lengths[other].as_py()} numbers, that of {self.of_vector(0)} has {width}; need one length. "
                "Embed the rows with one model, or remove the row."
            )
        return width

    def _refuse_null(self, array: Any) -> None:
        import pyarrow.compute as pc

        if array.null_count:
            missing = pc.index(pc.is_null(array), True).as_py()
            raise ValueError(
                f"{self.of_vector(missing)}: column {self.column!r} has no vector there. "
                "Embed its text, or remove the row."
            )


def _depth(kind: Any) -> int:
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return 1 + _depth(kind.value_type) if is_list else 0


def _innermost(kind: Any) -> Any:
    return _innermost(kind.value_type) if _depth(kind) else kind


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
