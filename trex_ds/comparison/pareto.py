"""The plot of accuracy against trainable parameters."""

from __future__ import annotations

from pathlib import Path

from trex_ds.comparison.results import MethodResult, Results
from trex_ds.files import atomic_path


def pareto_front(methods: list[MethodResult]) -> list[MethodResult]:
    """Methods that no method with as few parameters surpasses, ordered by their number of parameters."""
    front: list[MethodResult] = []
    for method in sorted(methods, key=lambda m: (m.trainable_parameters, -m.accuracy.value)):  # type: ignore[union-attr]
        if not front or method.accuracy.value > front[-1].accuracy.value:  # type: ignore[union-attr]
            front.append(method)
    return front


def draw_pareto(results: Results, file: Path) -> None:
    """Mean accuracy with its interval against parameters, one point a method; nothing where there is none yet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    methods = [method for method in results.methods if method.accuracy is not None]
    if not methods:
        return
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    baselines = {pair.baseline for pair in results.pairs}
    for method in methods:
        interval = method.accuracy
        assert interval is not None
        value, x = 100 * interval.value, method.trainable_parameters
        assert x is not None, "counted, since it was trained"
        below, above = value - 100 * interval.low, 100 * interval.high - value
        marker, color = ("s", "tab:gray") if method.name in baselines else ("o", "tab:blue")
        axes.errorbar(x, value, yerr=[[below], [above]], fmt=marker, color=color, capsize=3, markersize=6)
        axes.annotate(method.name, (x, value), xytext=(6, 6), textcoords="offset points", fontsize=8)
    front = pareto_front(methods)
    axes.plot(
        [method.trainable_parameters for method in front],  # type: ignore[arg-type]
        [100 * method.accuracy.value for method in front],  # type: ignore[union-attr]
        linestyle="--",
        linewidth=1,
        color="tab:blue",
        alpha=0.5,
        label="Pareto front",
    )
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(EngFormatter(sep=""))
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.margins(x=0.25, y=0.15)
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel("mean accuracy over tasks, %, with 95% interval")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        figure.savefig(stream, format="png", dpi=150)
