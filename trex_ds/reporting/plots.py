"""The plots of a report, as SVG."""

from __future__ import annotations

import io
from typing import Any

from trex_ds.adapters.counts import FROZEN, ROLES, trained
from trex_ds.reporting.claims import MOST_TIME
from trex_ds.reporting.result import Report

_WIDTH = 6.4
"""Inches; on a phone the page shows it at half its size."""


def plots(report: Report) -> dict[str, bytes]:
    """Each plot by what it shows."""
    return {
        f"trained parameters by role on {report.model}": _parameters(report),
        "ratios of step times of neighboring steps": _ratios(report),
        "error of approximating target updates": _errors(report),
    }


def _figure(height: float) -> tuple[Any, Any]:
    # Not pyplot: it keeps every figure, and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _parameters(report: Report) -> bytes:
    methods = report.counts[report.model]
    names = sorted(methods, key=lambda name: trained(methods[name]), reverse=True)
    figure, axes = _figure(0.9 + 0.3 * len(names))
    left = [0.0] * len(names)
    for role in ROLES:
        sizes = [methods[name][role] / 1e6 for name in names]
        if role != FROZEN and any(sizes):
            axes.barh(names, sizes, left=left, label=role)
            left = [a + b for a, b in zip(left, sizes, strict=True)]
    axes.set_xlabel(f"millions of trained parameters on {report.model}")
    axes.legend()
    return _svg(figure)


def _ratios(report: Report) -> bytes:
    comparisons = report.throughput.comparisons
    figure, axes = _figure(1.2 + 0.5 * len(comparisons))
    for row, comparison in enumerate(comparisons):
        median = comparison.median
        axes.plot(comparison.ratios, [row] * len(comparison.ratios), "o", color="C0", alpha=0.35)
        axes.plot([median.low, median.high], [row, row], color="C0", linewidth=3, solid_capstyle="butt")
        axes.plot(median.value, row, "|", color="black", markersize=16)
    axes.set_yticks(range(len(comparisons)), [f"{c.method} /\n{c.baseline}" for c in comparisons])
    axes.set_ylim(-0.6, len(comparisons) - 0.4)
    axes.axvline(1.0, color="gray", linewidth=1)
    axes.axvline(MOST_TIME, color="C3", linewidth=1, linestyle="--")
    axes.set_xlabel("ratio of step times; bar: 95% interval of the median; dashed: claimed")
    return _svg(figure)


def _errors(report: Report) -> bytes:
    found = report.approximation
    pairs = [i * j for i, j in found.sizes]
    figure, axes = _figure(3.6)
    for name, errors in (("learned", found.learned), ("free G", found.free)):
        means = [sum(own) / len(own) for own in errors]
        axes.plot(pairs, means, "o-", label=name)
        axes.fill_between(pairs, [min(own) for own in errors], [max(own) for own in errors], alpha=0.2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(pairs, [str(n) for n in pairs])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("I * J")
    axes.set_ylabel("relative squared error")
    axes.legend()
    return _svg(figure)
