"""Random numbers without a state: functions of a key and a position, equal in every process and after every resume."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Unsigned = NDArray[np.uint64]

_ROUNDS = 8  # of the Feistel network; 4 would do for a permutation that merely looks random
_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def key(*parts: int | str) -> int:
    """Hash whole numbers and strings to a key of 64 bits.

    >>> key("order", 0, 1) == key("order", 0, 1), key("order", 0, 1) == key("order", 1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def mixed(values: ArrayLike) -> Unsigned:
    """Scramble 64-bit numbers, each to another: the output function of SplitMix64 (Steele et al., OOPSLA 2014)."""
    scrambled: Any = np.asarray(values, dtype=np.uint64)
    with np.errstate(over="ignore"):
        scrambled = (scrambled ^ (scrambled >> np.uint64(30))) * _MULTIPLIERS[0]
        scrambled = (scrambled ^ (scrambled >> np.uint64(27))) * _MULTIPLIERS[1]
        return np.asarray(scrambled ^ (scrambled >> np.uint64(31)))


def keys_at(base: int, positions: ArrayLike) -> Unsigned:
    """Return a key for each position, all different.

    Args:
        base: A key.
        positions: Whole numbers of any shape, at least 0.
    """
    with np.errstate(over="ignore"):
        return mixed(np.uint64(base) + (np.asarray(positions, dtype=np.uint64) + np.uint64(1)) * _WEYL)


def uniform_at(base: int, positions: ArrayLike) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each position.

    >>> bool(abs(uniform_at(key("a"), range(10_000)).mean() - 0.5) < 0.01)
    True
    """
    return np.asarray((keys_at(base, positions) >> np.uint64(11)) * 2.0**-53)


def permuted(positions: ArrayLike, size: ArrayLike, keys: ArrayLike) -> NDArray[np.int64]:
    """Return where a permutation of ``size`` numbers takes each position: memory does not grow with ``size``.

    A Feistel network over the next power of two, repeated for those that leave the range (cycle walking; Black and
    Rogaway, CT-RSA 2002), so a bijection for every key.

    Args:
        positions: Whole numbers from 0 to ``size - 1``.
        size: How many numbers are permuted, up to 2^62.
        keys: Which permutation. All three are broadcast against one another.

    Returns:
        Numbers from 0 to ``size - 1``, int64, in the broadcast shape.

    Raises:
        ValueError: If a position is not below its size.

    >>> sorted(permuted(range(5), 5, key("order", 0)).tolist())
    [0, 1, 2, 3, 4]
    """
    broadcast: Any = np.broadcast_arrays(
        np.asarray(positions, dtype=np.int64), np.asarray(size, dtype=np.int64), np.asarray(keys, dtype=np.uint64)
    )
    position, sizes, base = broadcast
    if position.size and ((position < 0).any() or (position >= sizes).any()):
        raise ValueError(
            f"Got positions from {position.min()} to {position.max()} in permutations of {sizes.min()} or more "
            "numbers; need positions from 0 to size - 1."
        )
    shape = position.shape
    values, sizes, base = position.astype(np.uint64).ravel(), sizes.astype(np.uint64).ravel(), base.ravel()
    bits = np.frexp((sizes - np.uint64(1)).astype(np.float64))[1].astype(np.uint64)  # of the largest number
    result = np.empty(len(values), np.int64)
    walking: Any = np.arange(len(values))
    while len(walking):
        values = _feistel(values, bits, base)
        home = values < sizes
        result[walking[home]] = values[home].astype(np.int64)
        walking, values, sizes, bits, base = (part[~home] for part in (walking, values, sizes, bits, base))
    return result.reshape(shape)


def _feistel(values: Unsigned, bits: Unsigned, base: Unsigned) -> Unsigned:
    """Permute numbers of so many bits: each half is changed by what the other hashes to, in turn."""
    one = np.uint64(1)
    low_bits = bits >> one
    low_mask, high_mask = (one << low_bits) - one, (one << (bits - low_bits)) - one
    low, high = values & low_mask, values >> low_bits
    with np.errstate(over="ignore"):
        for number in range(_ROUNDS):
            round_key = mixed(base + np.uint64(number + 1) * _WEYL)
            if number % 2:
                low = low ^ (mixed(round_key ^ high) & low_mask)
            else:
                high = high ^ (mixed(round_key ^ low) & high_mask)
    return np.asarray((high << low_bits) | low)
