"""How the benchmarks report ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def quartiles(ratios: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratios of pairs that were measured side by side."""
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"lower_quartile": low, "median": median, "upper_quartile": high, "pairs": len(ratios)}
