"""The table of an evaluation: a row for each task, group or tag, and means that keep trained and other tasks apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from trex_ds.adapter_folder import AdapterFolder
from trex_ds.console import console
from trex_ds.evaluation.accuracy import Estimate, estimate, mean_over_tasks
from trex_ds.tables import Table
from trex_ds.tasks.harness.index import folders, leaf_configs
from trex_ds.tasks.harness.loading import Loaded
from trex_ds.tasks.harness.scoring import main_metric

Results = dict[str, Any]
"""Results as lm-eval returns them."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a task, group or tag as it was asked for, or a mean over such."""

    task: str
    n: int
    metric: str
    value: float
    standard_error: float | None
    base: float | None = None
    difference: Estimate | None = None
    """Difference to the base model, paired by item; None where a metric has no value for each item."""
    trained: float | None = None
    """Share of its tasks that the adapter was trained on; None where nothing says so."""
    is_accuracy: bool = True
    """Whether each item has a value in [0, 1], of which this is the mean."""

    @property
    def mark(self) -> str:
        """What a reader must know about the training, to stand after the name."""
        if self.trained is None or self.trained == 1:
            return ""
        return " (not trained on)" if self.trained == 0 else f" ({self.trained:.0%} of its tasks trained on)"


def rows_of(
    names: Sequence[str], loaded: Loaded, results: Results, base: Results | None, trained: set[str] | None
) -> list[Row]:
    """A row for each of `names`, in their order.

    Args:
        names: tasks, groups or tags, all of them evaluated.
        loaded: what they expand to.
        results: lm-eval's, with samples.
        base: the same of the base model.
        trained: single tasks that the adapter was trained on; None: not known.
    """
    return [_row(name, loaded, results, base, trained) for name in names]


def means_of(rows: Sequence[Row]) -> list[Row]:
    """Unweighted means over the accuracies: of what was trained on, and of what was not, where there are several.

    A group of which only a part was trained on is in neither. Where nothing says what was trained on, of all.
    """
    found = []
    for share in (None, 1.0, 0.0):
        own = [row for row in rows if row.trained == share and row.is_accuracy]
        if len(own) < 2:
            continue
        errors = [math.nan if row.standard_error is None else row.standard_error for row in own]
        mean = mean_over_tasks([Estimate(row.n, row.value, e) for row, e in zip(own, errors, strict=True)])
        bases = [row.base for row in own if row.base is not None]
        differences = [row.difference for row in own if row.difference is not None]
        found.append(
            Row(
                "mean",
                mean.n,
                ", ".join(dict.fromkeys(row.metric for row in own)),
                mean.value,
                mean.standard_error,
                math.fsum(bases) / len(bases) if bases else None,
                mean_over_tasks(differences) if differences else None,
                share,
            )
        )
    return found


def trained_tasks(adapter: str | None, loaded: Loaded) -> set[str] | None:
    """The single tasks of lm-eval that the recipe in an adapter's folder has training examples of; None without one."""
    entries = None if adapter is None else (AdapterFolder(Path(adapter)).recipe or {}).get("tasks")
    if entries is None:
        return None
    found: set[str] = set()
    for entry in entries:
        prefix, _, name = entry["source"].partition(":")
        if prefix == "lm_eval" and entry.get("train_examples") != 0:
            known = loaded.members.get(name)
            found |= set(known if known is not None else leaf_configs(name) if name in folders() else ())
    return found


def print_table(rows: Sequence[Row], means: Sequence[Row], output: Path) -> None:
    """The rows, the means below them, and where all of it is."""
    compared = any(row.base is not None for row in rows)
    head = ["task", "n", "metric", "value", *(("base", "difference") if compared else ())]
    cells = [_cells(row, compared) for row in (*rows, *means)]
    out = console()
    out.print(Table("", head, cells, numbers=False, lines_after={len(rows) - 1}))
    out.print(f"all of it: {output}")


def _cells(row: Row, compared: bool) -> list[str]:
    cells = [f"{row.task}{row.mark}", str(row.n), row.metric, f"{row.value:.4f}{_error(row.standard_error)}"]
    if compared:
        cells.append("" if row.base is None else f"{row.base:.4f}")
        found = row.difference
        cells.append("" if found is None else f"{found.value:+.4f}{_error(found.standard_error)}")
    return cells


def _error(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f" ± {value:.4f}"


def _row(name: str, loaded: Loaded, results: Results, base: Results | None, trained: set[str] | None) -> Row:
    members = loaded.members[name]
    share = None if trained is None else sum(member in trained for member in members) / len(members)
    sides = [results] if base is None else [results, base]
    try:
        values = [list(side) for side in zip(*_item_values(members, loaded, sides), strict=True)]
    except ValueError:  # no value for each item, so what lm-eval makes of all of them
        return _aggregated(name, members, results, base, share)
    metric = ", ".join(dict.fromkeys(values[0]))
    own = estimate(values[1])
    if base is None:
        return Row(name, own.n, metric, own.value, own.standard_error, trained=share)
    difference = estimate([mine - other for mine, other in zip(values[1], values[2], strict=True)])
    return Row(name, own.n, metric, own.value, own.standard_error, estimate(values[2]).value, difference, share)


def _item_values(members: tuple[str, ...], loaded: Loaded, sides: Sequence[Results]) -> Iterator[tuple[Any, ...]]:
    """List for every item of the tasks, in order: the metric, and its value in each of `sides`."""
    for member in members:
        samples = [side["samples"][member] for side in sides]
        metric, kept = main_metric(loaded.tasks[member], [sample for side in samples for sample in side], loaded.groups)
        own = [sorted((s for s in side if s["filter"] == kept), key=lambda s: s["doc_id"]) for side in samples]
        for items in zip(*own, strict=True):
            yield metric, *(float(item[metric]) for item in items)


def _aggregated(
    name: str, members: tuple[str, ...], results: Results, base: Results | None, trained: float | None
) -> Row:
    """lm-eval's own value of the group or task; of a tag, or a group that has none, the mean weighted by size."""
    found = results["results"].get(name, {})
    key = _first_metric(found)
    sources = [name] if key else [m for m in members if _first_metric(results["results"][m])]
    key = key or next((_first_metric(results["results"][member]) for member in sources), None)
    sizes = {member: results["n-samples"][member]["effective"] for member in members}
    if key is None:
        return Row(name, sum(sizes.values()), "", math.nan, None, trained=trained, is_accuracy=False)
    sources = [source for source in sources if key in results["results"][source]]
    weights = [sizes.get(source, 1) for source in sources]

    def value(side: Results) -> float:
        return float(np.average([side["results"][source][key] for source in sources], weights=weights))

    metric, kept = key.split(",", 1)
    error = results["results"][sources[0]].get(f"{metric}_stderr,{kept}") if len(sources) == 1 else None
    less = results["higher_is_better"].get(sources[0], {}).get(metric) is False
    return Row(
        name,
        sum(sizes.values()) if sources == [name] else sum(weights),
        metric + " (less is better)" * less,
        value(results),
        float(error) if isinstance(error, Real) else None,
        None if base is None else value(base),
        trained=trained,
        is_accuracy=False,
    )


def _first_metric(found: dict[str, Any]) -> str | None:
    return next(
        (key for key, value in found.items() if "," in key and isinstance(value, Real) and "_stderr," not in key), None
    )
