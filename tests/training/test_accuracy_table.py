"""What a finished job prints and saves about its accuracies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from trex_ds.evaluation.accuracy import Evaluation, Item
from trex_ds.training.summary import Summary, accuracy_table
from trex_ds.training.trainer import Seen

SCORES = {"unseen": ([0, 0], [0, 1]), "sums": ([0, 0], [1, 1]), "words": ([0, 0, 0, 1], [0, 0, 1, 1])}


def evaluations(untrained: frozenset[str]) -> tuple[Evaluation, Evaluation]:
    sides = [
        [
            Item(name, f"{name} {i}", "a", "b", score)
            for name, pair in SCORES.items()
            for i, score in enumerate(pair[side])
        ]
        for side in (0, 1)
    ]
    return Evaluation(sides[0], untrained), Evaluation(sides[1], untrained)


def printed(untrained: frozenset[str]) -> list[list[str]]:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(accuracy_table(*evaluations(untrained)))
    lines = [line.strip("│ ").split("│") for line in console.export_text().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line] for line in lines]


def test_tasks_that_were_not_trained_on_come_last_with_a_mean_of_their_own():
    rows = printed(frozenset({"unseen"}))
    assert [row[0] for row in rows] == ["sums", "words", "mean", "unseen (not trained on)", "mean (not trained on)"]
    assert [row[1] for row in rows] == ["2", "4", "6", "2", "2"]
    means = {row[0]: [cell.split(" ±")[0] for cell in row[2:]] for row in rows}
    assert means["mean"] == ["100.0", "12.5", "75.0", "+62.5"]
    assert means["mean (not trained on)"] == means["unseen (not trained on)"] == ["100.0", "0.0", "50.0", "+50.0"]


def test_one_mean_where_all_were_trained_on():
    rows = printed(frozenset())
    assert [row[0] for row in rows] == [*SCORES, "mean"]
    assert rows[-1][4].startswith("66.7")


@pytest.mark.parametrize("untrained", [frozenset(), frozenset({"unseen"})])
def test_summary_has_the_same_means(tmp_path, untrained):
    base, adapted = evaluations(untrained)
    figures = {"trainable_parameters": 1, "base_parameters": 2, "peak_bytes": 0, "steps": 1}
    times = {"tokens_per_second": 1.0, "step_seconds": 1.0, "seconds": 1.0}
    summary = Summary(base, adapted, **figures, **times, seen=Seen(1, "x"), rows={}, adapter=Path("x"))
    summary.save(tmp_path / "s.json", 0)
    found = json.loads((tmp_path / "s.json").read_text())
    assert {task for task, one in found["tasks"].items() if not one["trained"]} == untrained
    assert found["mean"]["adapted"]["value"] == pytest.approx(0.75 if untrained else 2 / 3)
    assert ("mean_untrained" in found) == bool(untrained)
    if untrained:
        assert found["mean_untrained"]["difference"]["value"] == 0.5
        assert not math.isnan(found["mean_untrained"]["best_guess"])
