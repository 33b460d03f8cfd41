"""How names and values appear in messages to the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 80


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Known names that `name` may be a misspelling of, at most `count`, the likeliest first."""
    return difflib.get_close_matches(name, list(known), n=count)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint beside an unknown name: the nearest known one, or all of them."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def shortened(text: str) -> str:
    """The text, cut to 80 characters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
