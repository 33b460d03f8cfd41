"""How values and names of the data appear in messages to the user."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from typing import Any

from trex_ds.wording import did_you_mean, shortened

_UNSEEN = ("Cc", "Cf")  # Unicode's control and format characters


def unknown(name: str, known: Iterable[str], kind: str) -> str:
    """Says that a name is unknown, with the nearest known one, or with all of them."""
    return f"unknown {kind} {name!r}; {did_you_mean(name, known)}"


def shown(value: Any) -> str:
    """A value as JSON, cut to 80 characters."""
    return shortened(json.dumps(value, ensure_ascii=False, default=repr))


def is_text(value: Any) -> bool:
    """Whether a value is text with more than white space and characters that are not seen, such as U+200B."""
    return isinstance(value, str) and any(not c.isspace() and unicodedata.category(c) not in _UNSEEN for c in value)


def in_quotes(value: Any) -> str:
    """What to do with a number or a truth value that should be text; "" for another value."""
    kind = "true or false" if isinstance(value, bool) else "a number" if isinstance(value, int | float) else ""
    return f"; it is {kind}: write it in quotes" if kind else ""
