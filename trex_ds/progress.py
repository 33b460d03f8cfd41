"""How far a stage has come: a bar on a terminal; in a log file one line when the stage is done."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from tqdm import tqdm


class Progress(tqdm):
    """tqdm's bar where there is a terminal; elsewhere a line on stderr at its end, with what it took.

    Args:
        iterable: as of tqdm.
        shown: False for no bar and no line, as on all ranks but one.
        settings: of tqdm; `unit` with a leading space.
    """

    def __init__(self, iterable: Any = None, *, shown: bool = True, **settings: Any):
        self._as_line = not sys.stderr.isatty()
        quiet: dict[str, Any] = {"file": io.StringIO(), "mininterval": 1e9} if self._as_line else {}
        self._started = time.perf_counter()
        super().__init__(iterable, disable=not shown, **{"mininterval": 1.0, **settings, **quiet})

    def close(self) -> None:
        """Remove the bar, or print the line."""
        if self._as_line and not self.disable:
            seconds = time.perf_counter() - self._started
            print(f"{self.desc}: {self.n:,}{self.unit} in {seconds:.1f} s", file=sys.stderr, flush=True)
        super().close()
