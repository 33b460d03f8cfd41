"""The console that commands print their results to."""

from __future__ import annotations

from typing import Any

from rich.console import Console

# Wider than any table: rich would cut names to make one fit, and takes 80 columns where there is no terminal.
_WIDTH = 10_000


def console(**settings: Any) -> Console:
    """rich's, which prints tables as wide as they are and text as it is: no name in it is cut, folded or markup."""
    return Console(width=_WIDTH, soft_wrap=True, markup=False, highlight=False, **settings)
