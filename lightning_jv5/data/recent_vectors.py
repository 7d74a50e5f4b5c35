"""The vectors of the texts that were embedded last, in bounded memory."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.data.vector_columns import StoredVectors


class RecentVectors:
    """Remembers the vectors of the last ``capacity`` texts; when it is full, the oldest makes room.

    Args:
        capacity: How many texts; 0 remembers none.

    Raises:
        ValueError: If ``capacity`` is negative.

    >>> recent = RecentVectors(capacity=2)
    >>> recent.add(["a", "b"], "query", StoredVectors(torch.eye(2)))
    >>> recent.add(["c"], "query", StoredVectors(torch.ones(1, 2)))
    >>> positions, found = recent.find(["a", "b", "c"], "query")
    >>> positions.tolist(), found.values.tolist()
    ([1, 2], [[0.0, 1.0], [1.0, 1.0]])
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"Got a capacity of {capacity} texts; need 0 or more.")
        self.capacity = capacity
        self._slots: dict[bytes, int] = {}
        self._keys: list[bytes] = []  # by slot
        self._next = 0
        self._stored: StoredVectors | None = None

    def find(self, texts: Sequence[str], role: str) -> tuple[Tensor, StoredVectors | None]:
        """Look texts up.

        Returns:
            Which of the texts are known, int64, shape ``(known,)``, and their vectors; None if none ever was.
        """
        known = [(at, slot) for at, text in enumerate(texts) if (slot := self._slots.get(_key(text, role))) is not None]
        positions, slots = torch.tensor(known, dtype=torch.int64).reshape(-1, 2).unbind(1)
        return positions, None if self._stored is None else self._stored[slots]

    def add(self, texts: Sequence[str], role: str, stored: StoredVectors) -> None:
        """Remember distinct texts that were not known."""
        if not self.capacity or not len(stored):
            return
        texts, stored = texts[-self.capacity :], stored[torch.arange(len(stored))[-self.capacity :]]
        if self._stored is None:  # pages that are never written to take no memory
            scale = None if stored.scale is None else torch.empty(self.capacity)
            self._stored = StoredVectors(stored.values.new_empty(self.capacity, stored.values.shape[1]), scale)
        slots = []
        for text in texts:
            key = _key(text, role)
            if len(self._keys) <= self._next:
                self._keys.append(key)
            else:
                del self._slots[self._keys[self._next]]
                self._keys[self._next] = key
            self._slots[key] = self._next
            slots.append(self._next)
            self._next = (self._next + 1) % self.capacity
        self._stored.values[slots] = stored.values
        if self._stored.scale is not None and stored.scale is not None:
            self._stored.scale[slots] = stored.scale


def _key(text: str, role: str) -> bytes:
    return hashlib.blake2b(f"{role}\0{text}".encode(errors="surrogatepass"), digest_size=16).digest()
