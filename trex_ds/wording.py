"""How names and values appear in messages to the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 1, least: float = 0.6) -> list[str]:
    """Known names that `name` may be a misspelling of, at most `count`, the likeliest first.

    Args:
        name: the unknown name.
        known: all names that are known.
        count: how many to return at most.
        least: how like the name they must be, from 0 to 1.
    """
    return difflib.get_close_matches(name, list(known), n=count, cutoff=least)


def did_you_mean(name: str, known: Iterable[str], before_all: str = "known:") -> str:
    """A hint beside an unknown name: the nearest known one, or all of them after `before_all`."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near[0]}?" if near else f"{before_all} {', '.join(known)}"


def shortened(text: str, most: int = 80) -> str:
    """The text, cut to `most` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."
