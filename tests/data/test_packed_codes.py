import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_jv5.data import packed_codes as module
from lightning_jv5.data.packed_codes import hamming, nearest_codes, pack_signs, unpack_signs
from lightning_jv5.metrics import View

DIMS = [1, 7, 8, 9, 31, 64, 65, 100, 384, 1000]


def embeddings(texts: int, dim: int, seed: int) -> Tensor:
    """Small whole numbers: a fifth of them zero."""
    return torch.randint(-2, 3, (texts, dim), generator=torch.Generator().manual_seed(seed)).float()


def slow_distances(one: Tensor, other: Tensor) -> list[list[int]]:
    """Count signs that differ, coordinate by coordinate; zero is positive."""
    signs = [[[value >= 0 for value in row] for row in side.tolist()] for side in (one, other)]
    return [[sum(a != b for a, b in zip(x, y, strict=True)) for y in signs[1]] for x in signs[0]]


def with_dirty_padding(codes: Tensor, dim: int) -> Tensor:
    """Set the bits after the last coordinate, as codes of another library may."""
    dirty = codes.clone()
    if dim % 8:
        dirty[:, -1] |= 0xFF >> dim % 8
    return dirty


@pytest.mark.parametrize("dim", DIMS)
def test_unpacking_gives_the_signs_that_a_binary_view_stores(dim: int) -> None:
    vectors = embeddings(5, dim, seed=0)
    codes = pack_signs(vectors)
    assert (codes.dtype, tuple(codes.shape)) == (torch.uint8, (5, -(-dim // 8)))
    view = View(precision="binary")
    assert unpack_signs(codes, dim).equal(view.document(view.cut(vectors)))
    assert unpack_signs(with_dirty_padding(codes, dim), dim).equal(unpack_signs(codes, dim))


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 100])
def test_bits_are_packed_from_the_highest_on_with_zero_as_positive(dim: int) -> None:
    vectors = embeddings(6, dim, seed=0)
    vectors[0, 0], vectors[1, 0] = 0.0, -0.0
    codes = pack_signs(vectors)
    for row, packed in zip(vectors.tolist(), codes.tolist(), strict=True):
        bits = "".join("1" if number >= 0 else "0" for number in row).ljust(8 * len(packed), "0")
        assert packed == [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert unpack_signs(codes, dim).equal(torch.where(vectors >= 0, 1.0, -1.0))


def test_codes_are_those_of_numpy() -> None:
    vectors = embeddings(5, 100, seed=0)
    assert pack_signs(vectors.half()).numpy().tolist() == np.packbits(vectors.numpy() >= 0, axis=1).tolist()


@pytest.mark.parametrize("dim", DIMS)
def test_hamming_counts_signs_that_differ_and_no_padding(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_QUERIES", 2)
    monkeypatch.setattr(module, "_TILE_DOCUMENTS", 4)
    queries, documents = embeddings(5, dim, seed=0), embeddings(9, dim, seed=1)
    found = hamming(with_dirty_padding(pack_signs(queries), dim), pack_signs(documents), dim=dim)
    assert found.dtype == torch.int32
    assert found.tolist() == slow_distances(queries, documents)
    view = View(precision="binary")
    products = view.query(view.cut(queries)) @ view.document(view.cut(documents)).T
    assert (dim - 2 * found).float().equal(products)


@pytest.mark.parametrize("size", [1, 7, 40, 300])
@pytest.mark.parametrize("depth", [1, 10, 400])
@pytest.mark.parametrize("dim", [5, 65])
def test_tiles_give_what_sorting_all_distances_gives_ties_by_place_in_the_corpus(
    dim: int, depth: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_QUERIES", 4)
    monkeypatch.setattr(module, "_SLAB_QUERIES", 6)
    monkeypatch.setattr(module, "_TILE_DOCUMENTS", 32)
    queries, corpus = embeddings(11, dim, seed=0), embeddings(300, dim, seed=1)
    tiles = with_dirty_padding(pack_signs(corpus), dim).split(size)
    found = nearest_codes(pack_signs(queries), tiles, dim=dim, depth=depth)
    expected = [sorted((d, row) for row, d in enumerate(of_query)) for of_query in slow_distances(queries, corpus)]
    padding = [(-1, -1)] * (depth - 300)
    assert found.distances.tolist() == [[d for d, _ in (best[:depth] + padding)] for best in expected]
    assert found.rows.tolist() == [[row for _, row in (best[:depth] + padding)] for best in expected]


def test_the_farthest_of_wide_codes_are_found_too() -> None:
    dim = 2**16 - 2
    corpus = torch.ones(2, dim)
    corpus[1] = -1
    found = nearest_codes(pack_signs(corpus[:1]), [pack_signs(corpus)], dim=dim, depth=3)
    assert found.distances.tolist() == [[0, dim, -1]]
    assert found.rows.tolist() == [[0, 1, -1]]


def test_an_empty_corpus_gives_nothing() -> None:
    codes = pack_signs(torch.eye(2))
    assert nearest_codes(codes, [], dim=2, depth=1).rows.tolist() == [[-1], [-1]]
    assert nearest_codes(codes, [codes[:0]], dim=2, depth=1).rows.tolist() == [[-1], [-1]]
    assert hamming(codes, codes[:0], dim=2).shape == (2, 0)


def test_embeddings_without_signs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Got embeddings \(3,\); need \(texts, dim\)"):
        pack_signs(torch.ones(3))
    with pytest.raises(ValueError, match="Got embeddings that are not finite"):
        pack_signs(torch.tensor([[1.0, torch.nan]]))


CODES = pack_signs(torch.ones(2, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "Got depth 0; need at least 1"),
        ({"dim": 0}, "Got codes of dim 0; need 1 to 65534"),
        ({"dim": 2**16 - 1}, "Got codes of dim 65535; need 1 to 65534"),
        ({"dim": 17}, r"Got query codes of type torch.uint8 and shape \(2, 2\); need torch.uint8 and \(texts, 3\)"),
        ({"query_codes": CODES.float()}, "Got query codes of type torch.float32"),
        ({"tiles": [CODES, CODES[0]]}, r"Got document codes from row 2 on of type torch.uint8 and shape \(2,\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    defaults: dict[str, object] = {"query_codes": CODES, "tiles": [CODES], "dim": 16, "depth": 1}
    with pytest.raises(ValueError, match=message):
        nearest_codes(**{**defaults, **arguments})  # type: ignore[arg-type]


def test_wrong_codes_are_refused_wherever_they_are_read() -> None:
    with pytest.raises(ValueError, match=r"Got codes of type .* need torch.uint8 and \(texts, 1\) for dim 8"):
        unpack_signs(CODES, 8)
    with pytest.raises(ValueError, match=r"Got document codes of type .* need torch.uint8 and \(texts, 2\)"):
        hamming(CODES, CODES.long(), dim=16)
