"""Rows that cannot be used: an error at the first of them, or skipped, counted and bounded."""

import logging
from typing import Literal

OnBadRow = Literal["error", "skip"]

_FEW_ROWS = 1000
_log = logging.getLogger(__name__)


class BadRows:
    """What one data set does about rows that cannot be used.

    Args:
        origin: Where the rows are from, for messages.
        on_bad_row: ``"error"`` raises at the first; ``"skip"`` leaves them out.
        max_bad_share: With ``"skip"``: most rows that may be left out, as a share of all (0.01 is one in a hundred).
            Data of which more is unusable is misread rather than dirty.
        said: Messages that need not be logged again; those that are logged are added.

    Attributes:
        count: How many rows cannot be used.
        first: What is wrong with the first of them.

    Raises:
        ValueError: If an argument is wrong.

    >>> bad = BadRows("faq.jsonl", "skip", max_bad_share=0.5)
    >>> bad.report("row 3", "column 'query' is empty", "Fill it in or remove the row.")
    >>> bad.finish(rows=8)
    1
    """

    def __init__(
        self, origin: str, on_bad_row: OnBadRow = "error", max_bad_share: float = 0.01, said: set[str] | None = None
    ) -> None:
        if on_bad_row not in ("error", "skip"):
            raise ValueError(f"Got on_bad_row {on_bad_row!r}; need 'error' or 'skip'.")
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"Got max_bad_share {max_bad_share}; need a share of the rows, between 0 and 1.")
        self.origin, self.on_bad_row, self.max_bad_share = origin, on_bad_row, max_bad_share
        self.count = self._reported = 0
        self.first = ""
        self._said = set() if said is None else said

    def report(self, place: str, what: str, remedy: str, count: int = 1) -> None:
        """Tell of a row that cannot be used, or of several at once.

        Args:
            place: Where the first is: ``"row 3"``, ``"line 7"``.
            what: What is wrong with it, without a full stop.
            remedy: What to do about it: a sentence.
            count: How many rows this stands for.

        Raises:
            ValueError: Unless such rows are skipped.
        """
        message = f"{self.origin}, {place}: {what}."
        if self.on_bad_row == "error":
            raise ValueError(f"{message} {remedy} Or leave such rows out with on_bad_row: skip.")
        self.first = self.first or f"{message} {remedy}"
        self.count += count

    def recall(self, count: int, first: str) -> None:
        """Take up what an earlier pass over the same rows found: its :attr:`count` and :attr:`first`."""
        self.count, self.first = count, first

    def so_far(self, rows: int) -> None:
        """Say what has been skipped of a stream, whose end nobody knows: the first time, and each time it has doubled.

        Args:
            rows: How many rows there have been.

        Raises:
            ValueError: If too many were skipped; of less than 1,000 rows, as many as of 1,000 are allowed.
        """
        if self.count > self.max_bad_share * max(rows, _FEW_ROWS):
            self.finish(rows)
        elif self.count and self.count >= 2 * self._reported:
            self._reported = self.count
            self._log(rows)

    def finish(self, rows: int) -> int:
        """Say what was skipped.

        Args:
            rows: How many rows there were, with those that are skipped.

        Returns:
            How many are skipped.

        Raises:
            ValueError: If they are more than the bound allows.
        """
        if not self.count:
            return 0
        if self.count / max(rows, 1) > self.max_bad_share:
            raise ValueError(
                f"{self.origin}: {self._counted(rows)} cannot be used; max_bad_share allows {self.max_bad_share:.2%}. "
                f"The first: {self.first} Correct the data or the columns, or raise max_bad_share."
            )
        self._log(rows)
        return self.count

    def _log(self, rows: int) -> None:
        message = f"{self.origin}: skipped {self._counted(rows)}. The first: {self.first}"
        if message not in self._said:
            self._said.add(message)
            _log.warning("%s", message)

    def _counted(self, rows: int) -> str:
        return f"{self.count} of {rows} rows ({self.count / max(rows, 1):.2%})"
