import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from lightning_jv5.data.packed_codes import pack_signs
from lightning_jv5.data.vector_columns import (
    PRECISIONS,
    StoredVectors,
    arrow_columns,
    sign_bits,
    store,
    vectors,
)


def unit_rows(count: int, dim: int, seed: int = 0) -> Tensor:
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def table(embeddings: Tensor, precision: Any = "float16", counts: list[int] | None = None) -> pa.Table:
    return pa.table(arrow_columns("v", store(embeddings.float(), precision), counts))


# Precisions


def test_int8_codes_are_those_of_the_formula_written_slowly() -> None:
    embeddings = unit_rows(5, 7).float()
    stored = store(embeddings, "int8")
    assert stored.scale is not None
    for row, codes, scale in zip(embeddings.tolist(), stored.values.tolist(), stored.scale.tolist(), strict=True):
        largest = max(abs(number) for number in row)
        assert scale == pytest.approx(largest / 127)
        assert codes == [round(number / largest * 127) for number in row]
        assert max(map(abs, codes)) == 127


def test_int8_moves_similarities_of_2560_dims_by_about_3e_4() -> None:
    first, second = unit_rows(512, 2560), unit_rows(512, 2560, seed=1)
    read = [vectors(table(rows, "int8"), "v").double() for rows in (first, second)]
    error = read[0] @ read[1].T - first @ second.T
    rms = float(error.pow(2).mean().sqrt())
    assert 1e-4 < rms < 3e-4
    assert float(error.abs().max()) < 2e-3
    # As a check that the bound says something: four bits are far outside
    largest = first.abs().amax(dim=1, keepdim=True)
    four_bits = (first / largest * 7).round() * largest / 7
    assert float((four_bits @ second.T - first @ second.T).pow(2).mean().sqrt()) > 3e-3


def test_a_zero_vector_is_zero_in_int8() -> None:
    assert torch.equal(vectors(table(torch.zeros(1, 4), "int8"), "v"), torch.zeros(1, 4))


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 384])
def test_sign_bits_are_read_as_they_were_packed(dim: int) -> None:
    embeddings = unit_rows(6, dim).float()
    assert torch.equal(sign_bits(table(embeddings, "binary"), "v"), pack_signs(embeddings))


def test_signs_of_what_is_not_finite_are_not_stored() -> None:
    with pytest.raises(ValueError, match="Got embeddings that are not finite; need numbers with a sign"):
        store(torch.tensor([[1.0, torch.nan]]), "binary")


@pytest.mark.parametrize(
    ("precision", "size"), [("float32", 10240), ("float16", 5120), ("int8", 2564), ("binary", 320)]
)
def test_bytes_of_a_vector_of_2560_dims(precision: Any, size: int) -> None:
    assert table(unit_rows(8, 2560), precision).nbytes == 8 * size


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="Got precision 'int4'; need one of float32, float16, int8, binary"):
        store(torch.eye(2), "int4")  # type: ignore[arg-type]


# Reading


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_floats_are_read_as_they_were_written(precision: Any) -> None:
    embeddings = unit_rows(6, 10).float()
    read = vectors(table(embeddings, precision), "v")
    assert read.dtype == getattr(torch, precision)
    assert torch.equal(read, embeddings.to(read.dtype))


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_ragged_lists_of_vectors_are_read_flat(precision: Any) -> None:
    embeddings = unit_rows(6, 10).float()
    ragged = table(embeddings, precision, counts=[2, 0, 3, 1])
    assert ragged.num_rows == 4
    assert torch.equal(vectors(ragged, "v"), vectors(table(embeddings, precision), "v"))
    assert torch.equal(vectors(ragged.slice(1, 2), "v"), vectors(table(embeddings[2:5], precision), "v"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_vectors_at_all_keep_their_width(precision: Any) -> None:
    read = (sign_bits if precision == "binary" else vectors)(table(torch.zeros(0, 16), precision), "v")
    assert read.shape == (0, 2 if precision == "binary" else 16)


def test_slices_and_chunks_are_read_in_their_order() -> None:
    embeddings = unit_rows(6, 4).float()
    whole = table(embeddings)
    assert torch.equal(vectors(whole.slice(2, 3), "v"), embeddings[2:5].half())
    assert torch.equal(
        vectors(pa.concat_tables([whole.slice(4), whole.slice(0, 2)]), "v"), embeddings[[4, 5, 0, 1]].half()
    )


def test_other_floats_and_lists_of_one_length_are_read_as_float32() -> None:
    doubles = pa.table({"v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64()))})
    read = vectors(doubles, "v")
    assert read.dtype == torch.float32
    assert read.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_what_is_read_may_be_written_to() -> None:
    stored = table(torch.eye(2))
    vectors(stored, "v").zero_()
    assert torch.equal(vectors(stored, "v"), torch.eye(2).half())


def peak_bytes(read: Callable[[], object]) -> int:
    tracemalloc.start()
    read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_reading_makes_no_python_float_lists() -> None:
    count, dim = 64, 1024
    stored = table(unit_rows(count, dim))
    vectors(stored, "v")  # imports
    # A Python float takes 24 bytes and its place in a list 8; the numbers themselves take 2
    assert peak_bytes(stored["v"].to_pylist) > 24 * count * dim
    assert peak_bytes(lambda: vectors(stored, "v")) < 2 * 2 * count * dim


def test_float16_goes_from_arrow_to_torch_as_one_block() -> None:
    flat = table(unit_rows(64, 1024))["v"].combine_chunks().flatten()
    assert isinstance(flat.to_numpy(zero_copy_only=True), np.ndarray)


# What is wrong with a column


def lists(rows: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"v": pa.array(rows, kind or pa.list_(pa.float16()))})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lists([[1.0, 2.0], [1.0]]), "row 1 .*column 'v' has 1 numbers, that of row 0 .* has 2.*remove the row"),
        (lists([[1.0], None]), "row 1 .*column 'v' has no vector there. Embed its text"),
        (lists([[1.0], None], pa.list_(pa.float16(), 1)), "row 1 .*column 'v' has no vector there"),
        (lists([[1.0, 2.0], [1.0, None]]), "row 1 .*column 'v' has a null in it; need numbers"),
        (lists([[1.0, 2.0], [float("nan"), 1.0]]), "row 1 .*column 'v' is not finite. Remove the row"),
        (lists([[1.0], [float("inf")]]), "row 1 .*is not finite"),
        (
            lists([[[1.0], [2.0]], [], [[3.0], [float("nan")]]], pa.list_(pa.list_(pa.float32(), 1))),
            "row 2 .*not finite",
        ),
        (lists([[[1.0]], None], pa.list_(pa.list_(pa.float32(), 1))), "row 1 .*no vector"),
        (lists([[[1.0]], [], [None]], pa.list_(pa.list_(pa.float32(), 1))), "row 2 .*no vector"),
        (lists(["a"], pa.string()), "Column 'v' holds string; need lists of numbers"),
        (lists([["a"]], pa.list_(pa.string())), "Column 'v' holds list<item: string>; need lists of numbers"),
        (lists([[1]], pa.list_(pa.int8())), "int8 codes, and there is no v_scale; need the scale"),
        (lists([[1]], pa.list_(pa.uint8())), "sign bits; need floats, or int8 codes. Embed again with precision"),
        (pa.table({"vv": [1]}), "No column 'v' among vv. Did you mean 'vv'?"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_row(wrong: pa.Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vectors(wrong, "v")


def test_scales_that_do_not_fit_are_refused() -> None:
    codes = table(torch.eye(2), "int8", counts=[1, 1])
    wrong = codes.set_column(1, "v_scale", pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())))
    with pytest.raises(ValueError, match="Column 'v_scale' holds 3 scales for 2 vectors; need one for each"):
        vectors(wrong, "v")
    missing = codes.set_column(1, "v_scale", pa.array([[1.0], None], pa.list_(pa.float32())))
    with pytest.raises(ValueError, match=r"row 1 .*column 'v_scale' has no vector"):
        vectors(missing, "v")


def test_sign_bits_are_not_read_from_floats() -> None:
    with pytest.raises(ValueError, match=r"Column 'v' holds torch.float16; sign bits are uint8. Read it with vectors"):
        sign_bits(table(torch.eye(2)), "v")


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="Got counts that sum to 3 for 2 vectors; need one vector for each"):
        arrow_columns("v", StoredVectors(torch.eye(2)), [1, 2])
