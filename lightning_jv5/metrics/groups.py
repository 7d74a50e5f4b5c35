"""Rows that belong together, such as those of a language: each group is scored by itself."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_by_group(groups: Sequence[str | None], rows: int) -> dict[str, Tensor]:
    """Return the rows of each group, int64 and ascending; the groups by name.

    Args:
        groups: Group of each row, None for a row in none.
        rows: Number of rows.

    Raises:
        ValueError: If there is not one for each row.

    >>> rows_by_group(["en", "de", None, "en"], rows=4)
    {'de': tensor([1]), 'en': tensor([0, 3])}
    """
    if len(groups) != rows:
        raise ValueError(f"Got {len(groups)} groups for {rows} rows; need one for each. Check the column of groups.")
    found: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        if group is not None:
            found.setdefault(group, []).append(row)
    return {group: torch.tensor(found[group]) for group in sorted(found)}
