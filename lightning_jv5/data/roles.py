"""Whose prompt a text gets."""

import difflib
from collections.abc import Sequence

PROMPT_ROLES = ("query", "document")


def check_role(role: str, known: Sequence[str], name: str) -> None:
    """Raise a ValueError that names the nearest known role if ``role`` is none of them.

    >>> check_role("query", ("query", "document"), "prompts")
    """
    if role in known:
        return
    nearest = difflib.get_close_matches(role, known, n=1, cutoff=0.0)[0]
    raise ValueError(f"Got {name} {role!r}; need one of {', '.join(known)}. Did you mean {nearest!r}?")
