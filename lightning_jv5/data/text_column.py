"""A column of texts that stays on disk."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import datasets


class TextColumn(Sequence[str]):
    """The texts of memory-mapped rows, each read when it is asked for; empty where there is none.

    Args:
        rows: Rows as :func:`~lightning_jv5.data.arrow_cache.mapped_rows` returns them.
        column: The column.
        places: Which of the rows, by default all; int64.

    >>> from datasets import Dataset
    >>> texts = TextColumn(Dataset.from_dict({"text": ["a", None, "c"]}), "text")
    >>> len(texts), texts[2], texts[:2], list(texts.take([2, 0]))
    (3, 'c', ['a', ''], ['c', 'a'])
    """

    def __init__(self, rows: "datasets.Dataset", column: str, places: NDArray[np.int64] | None = None) -> None:
        self._rows, self._column, self._places = rows, column, places
        self._texts: Any = None

    def take(self, places: Sequence[int]) -> "TextColumn":
        """Return the texts at these places, still on disk."""
        here = np.asarray(places, dtype=np.int64)
        return TextColumn(self._rows, self._column, here if self._places is None else self._places[here])

    def __len__(self) -> int:
        return len(self._rows if self._places is None else self._places)

    @overload
    def __getitem__(self, which: int) -> str: ...

    @overload
    def __getitem__(self, which: slice) -> list[str]: ...

    def __getitem__(self, which: int | slice) -> str | list[str]:
        """Return a text, or those of a slice."""
        if isinstance(which, slice):
            return [self[place] for place in range(len(self))[which]]
        place = range(len(self))[which]  # negative places count from the end, those beyond it are an IndexError
        if self._texts is None:
            self._texts = self._rows.data.column(self._column)
        return self._texts[place if self._places is None else int(self._places[place])].as_py() or ""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the texts to the rows, which other processes map again by their file."""
        return self.__dict__ | {"_texts": None}
