"""Sign codes at eight coordinates a byte: 1/32 of float32, compared by Hamming distance, exactly."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_jv5.data.best_keys import FEW, LAST_TIE, NOTHING, keep_pairs, pack, scores_of, ties_of

_MOST_DIM = 2**16 - 2  # so that a distance, and one that is larger than all, are uint16
_TILE_DOCUMENTS = 2**12
_BLOCK_QUERIES = 32  # with a tile of documents a megabyte of words, which stays near a core
_SLAB_QUERIES = 2**10  # whose distances to a tile are held at once: 8 MiB


class NearestCodes(NamedTuple):
    """What :func:`nearest_codes` found.

    Attributes:
        distances: Hamming distances in bits, nearest first, int32; ``-1`` where there are fewer documents.
        rows: Rows in the corpus, int64; ``-1`` where there are fewer documents.
    """

    distances: Tensor
    rows: Tensor


def pack_signs(embeddings: Tensor) -> Tensor:
    """Keep the sign of each coordinate, one bit each; zero counts as positive.

    The first coordinate is the highest bit of the first byte, as in ``numpy.packbits``, faiss and sentence-transformers
    (``ubinary``). To pack leading coordinates alone, cut first.

    Args:
        embeddings: Shape ``(texts, dim)``, of any float type and on any device.

    Returns:
        Codes, uint8 on the CPU, shape ``(texts, ceil(dim / 8))``; the last byte is filled up with zero bits.

    Raises:
        ValueError: If the shape is another, or a number is not finite.

    >>> pack_signs(torch.tensor([[0.5, -0.5, 0.0, -0.1, -0.2, -0.3, -0.4, 0.9, 0.7]]))
    tensor([[161, 128]], dtype=torch.uint8)
    """
    if embeddings.ndim != 2:
        raise ValueError(f"Got embeddings {tuple(embeddings.shape)}; need (texts, dim). Pool token embeddings first.")
    if not embeddings.isfinite().all():
        raise ValueError(
            "Got embeddings that are not finite; need numbers with a sign. Check the model's weights and its precision."
        )
    return torch.from_numpy(np.packbits((embeddings >= 0).cpu().numpy(), axis=1))


def unpack_signs(codes: Tensor, dim: int) -> Tensor:
    """Return the signs in codes of :func:`pack_signs` as +1 and -1: float32, shape ``(texts, dim)``.

    Their dot products rank as Hamming distances do.

    Args:
        codes: uint8, shape ``(texts, ceil(dim / 8))``.
        dim: Coordinates of each text; the bits after them are padding.

    Raises:
        ValueError: If codes are not of this type and width.

    >>> unpack_signs(torch.tensor([[160]], dtype=torch.uint8), dim=3)
    tensor([[ 1., -1.,  1.]])
    """
    _check_codes(codes, dim, "codes")
    bits = np.unpackbits(codes.cpu().numpy(), axis=1, count=dim)
    return torch.from_numpy(bits).float().mul_(2).sub_(1)


def hamming(query_codes: Tensor, document_codes: Tensor, *, dim: int) -> Tensor:
    """Count the coordinates in which signs differ, between every query and every document.

    Args:
        query_codes: Of :func:`pack_signs`, shape ``(queries, ceil(dim / 8))``.
        document_codes: Likewise, shape ``(documents, ceil(dim / 8))``.
        dim: Coordinates of each text; bits after them do not count.

    Returns:
        Distances in bits, int32, shape ``(queries, documents)``; ``dim - 2 * distance`` is the dot product of signs.

    Raises:
        ValueError: If codes are not of this type and width.

    >>> codes = pack_signs(torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0]]))
    >>> hamming(codes, codes, dim=3)
    tensor([[0, 2],
            [2, 0]], dtype=torch.int32)
    """
    _check_codes(query_codes, dim, "query codes")
    _check_codes(document_codes, dim, "document codes")
    queries, documents = _words(query_codes, dim), np.ascontiguousarray(_words(document_codes, dim).T)
    distances = np.empty((len(queries), documents.shape[1]), np.uint16)
    for tile in range(0, documents.shape[1], _TILE_DOCUMENTS):
        columns = slice(tile, tile + _TILE_DOCUMENTS)
        for block in _blocks(len(queries)):
            _count(queries[block], documents[:, columns], distances[block, columns])
    return torch.from_numpy(distances.astype(np.int32))


def nearest_codes(query_codes: Tensor, tiles: Iterable[Tensor], *, dim: int, depth: int) -> NearestCodes:
    """Find the documents at the smallest Hamming distances; of those that tie, the ones that come first in the corpus.

    On the CPU, in as many threads as torch may use. Memory is that of the queries, of one tile and of ``depth`` keys
    for each query.

    Args:
        query_codes: Of :func:`pack_signs`, shape ``(queries, ceil(dim / 8))``.
        tiles: Codes of the corpus in its order, a part at a time, each of shape ``(documents, ceil(dim / 8))``.
        dim: Coordinates of each text; bits after them do not count.
        depth: Documents to find for each query.

    Returns:
        Distances and rows, shape ``(queries, depth)``.

    Raises:
        ValueError: If ``depth`` is below 1, or codes are not of this type and width.

    >>> codes = pack_signs(torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
    >>> nearest_codes(codes[:1], [codes[:2], codes[2:]], dim=3, depth=2)
    NearestCodes(distances=tensor([[0, 0]], dtype=torch.int32), rows=tensor([[0, 2]]))
    """
    if depth < 1:
        raise ValueError(f"Got depth {depth}; need at least 1.")
    _check_codes(query_codes, dim, "query codes")
    queries = _words(query_codes, dim)
    keys = torch.full((len(queries), depth), NOTHING)
    first = 0
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for tile in tiles:
            _check_codes(tile, dim, f"document codes from row {first} on")
            for codes in torch.split(tile, _TILE_DOCUMENTS):
                documents = np.ascontiguousarray(_words(codes, dim).T)
                for start in range(0, len(queries), _SLAB_QUERIES):
                    slab = queries[start : start + _SLAB_QUERIES]
                    distances = np.empty((len(slab), len(codes)), np.uint16)
                    # numpy computes outside Python's lock
                    counting = [
                        threads.submit(_count, slab[block], documents, distances[block]) for block in _blocks(len(slab))
                    ]
                    for counted in counting:
                        counted.result()
                    _keep_nearest(keys[start : start + _SLAB_QUERIES], distances, first)
                first += len(codes)
    ties = ties_of(keys)
    return NearestCodes(
        torch.where(keys == NOTHING, -1, -scores_of(keys)).to(torch.int32),
        torch.where(ties < 0, -1, LAST_TIE - ties),
    )


def _keep_nearest(keys: Tensor, distances: NDArray[np.uint16], first: int) -> None:
    """Write the nearest of what ``keys`` has and of a tile's documents into ``keys``, in place."""
    depth, documents = keys.shape[1], distances.shape[1]
    farthest = (-scores_of(keys[:, -1:])).clamp_(max=np.iinfo(distances.dtype).max).numpy()
    # A document that only ties with the last key comes after it in the corpus
    is_nearer = distances < farthest.astype(distances.dtype)
    if np.count_nonzero(is_nearer) > FEW * is_nearer.size and documents > depth:  # the first tiles
        is_nearer &= distances <= np.partition(distances, depth - 1, axis=1)[:, depth - 1 : depth]
    flat = np.flatnonzero(is_nearer)
    query, column = (torch.from_numpy(part) for part in np.divmod(flat, documents))
    scores = torch.from_numpy(-distances.ravel()[flat].astype(np.float32))
    keep_pairs(keys, query, column, pack(scores, LAST_TIE - first - column))


def _blocks(queries: int) -> list[slice]:
    return [slice(start, start + _BLOCK_QUERIES) for start in range(0, queries, _BLOCK_QUERIES)]


def _count(queries: NDArray[np.uint64], documents: NDArray[np.uint64], out: NDArray[np.uint16]) -> None:
    """Count the bits that differ; shapes ``(queries, words)``, ``(words, documents)``, ``(queries, documents)``."""
    differing, bits = np.empty(out.shape, np.uint64), np.empty(out.shape, np.uint8)
    out[:] = 0
    for word in range(len(documents)):
        np.bitwise_xor(queries[:, word, None], documents[word], out=differing)
        np.add(out, np.bitwise_count(differing, out=bits), out=out)


def _words(codes: Tensor, dim: int) -> NDArray[np.uint64]:
    """Codes as words of 64 bits, shape ``(texts, words)``, the bits after ``dim`` cleared."""
    padded = np.zeros((len(codes), -(-dim // 64) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes.cpu().numpy()
    if dim % 8:
        padded[:, codes.shape[1] - 1] &= 0xFF << (8 - dim % 8) & 0xFF
    return padded.view(np.uint64)


def _check_codes(codes: Tensor, dim: int, what: str) -> None:
    if not 1 <= dim <= _MOST_DIM:
        raise ValueError(f"Got codes of dim {dim}; need 1 to {_MOST_DIM}. Pass how many coordinates were packed.")
    width = -(-dim // 8)
    if codes.dtype != torch.uint8 or codes.ndim != 2 or codes.shape[1] != width:
        raise ValueError(
            f"Got {what} of type {codes.dtype} and shape {tuple(codes.shape)}; need torch.uint8 and (texts, {width}) "
            f"for dim {dim}. Make them with pack_signs, and pass the dim that was packed."
        )
