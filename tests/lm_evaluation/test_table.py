"""Rows and means of the table, from results as lm-eval gives them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evaluation.tables import loaded, results_of
from trex_ds.lm_evaluation.table import means_of, print_table, rows_of, trained_tasks


def rows(scores: dict[str, list[Any]], base: dict[str, list[Any]] | None = None, trained=None, **more: Any):
    tasks = loaded(list(scores), **more)
    compared = results_of(tasks, base) if base else None
    return rows_of(list(tasks.members), tasks, results_of(tasks, scores), compared, trained)


def test_a_group_is_the_mean_over_all_items():
    (row,) = rows({"a": [1, 0, 0], "b": [1]}, {"a": [0, 0, 0], "b": [0]}, members={"both": ("a", "b")})
    assert (row.task, row.n, row.metric, row.value, row.base) == ("both", 4, "acc", 0.5, 0.0)
    assert row.difference.value == 0.5
    assert row.standard_error == pytest.approx(math.sqrt(1 / 3 / 4))


def test_one_model_within_0_and_1_and_the_other_not():
    """Scores up to 100, of which one model happens to have none above 1: no accuracy of either."""
    (row,) = rows({"a": [0.0, 1.0]}, {"a": [40.0, 60.0]})
    assert (row.value, row.base, row.difference, row.is_accuracy) == (0.5, 50.0, None, False)
    (row,) = rows({"a": [40.0, 60.0]}, {"a": [0.0, 1.0]})
    assert (row.value, row.base, row.difference, row.is_accuracy) == (50.0, 0.5, None, False)


def test_a_metric_that_only_one_model_has_a_number_for_is_not_compared():
    (row,) = rows({"a": [1.0, 1.0]}, {"a": [None, 1.0]}, aggregated={"a": {"f1,none": 0.7}})
    assert (row.metric, row.value, row.difference) == ("f1", 0.7, None)


@pytest.mark.parametrize("average", [None, "f1"])
def test_metric_of_all_items_of_a_group(average):
    """lm-eval's own average, and where the group has none the mean of its tasks by size, not the first one's."""
    aggregated: dict[str, Any] = {"a": {"f1,none": 0.9, "f1_stderr,none": 0.1}, "b": {"f1,none": 0.5}}
    if average:
        aggregated["both"] = {"f1,none": 0.7, "f1_stderr,none": 0.2}
    pairs = {"a": [(0, 1)], "b": [(0, 1)] * 3}
    (row,) = rows(pairs, pairs, members={"both": ("a", "b")}, aggregated=aggregated)
    assert row.n == 4
    assert row.value == row.base == pytest.approx(0.7 if average else (0.9 + 3 * 0.5) / 4)
    assert row.standard_error == (0.2 if average else None)


def test_no_metric_at_all_is_a_row_without_a_value():
    (row,) = rows({"a": [(0, 1)]}, aggregated={"a": {"alias": "a, b"}})
    assert (row.metric, row.n) == ("", 1)
    assert math.isnan(row.value)


def test_whole_numbers_and_metrics_of_which_less_is_better():
    (row,) = rows({"a": [(0, 1)]}, aggregated={"a": {"word_loss,none": 3}}, better={"word_loss": False})
    assert (row.metric, row.value) == ("word_loss (less is better)", 3.0)


def test_means_keep_trained_and_other_tasks_apart():
    scores = {"a": [1, 1], "b": [0, 1], "c": [0, 0], "d": [0, 1], "e": [1, 1], "f": [(0, 1)]}
    found = rows(
        scores,
        trained={"a", "b", "e", "f"},
        members={"a": ("a",), "b": ("b",), "c": ("c",), "d": ("d",), "half": ("e", "c"), "f": ("f",)},
        aggregated={"f": {"f1,none": 40.0}},
    )
    assert [row.mark for row in found] == [
        *("", "", " (not trained on)", " (not trained on)", " (50% of its tasks trained on)", "")
    ]
    own, others = means_of(found)
    assert (own.value, own.n, own.trained, own.mark) == (0.75, 4, 1.0, "")
    assert own.standard_error == pytest.approx(math.hypot(0, 0.5) / 2)
    assert (others.value, others.n, others.mark) == (0.25, 4, " (not trained on)")


def test_printed_table_marks_what_was_not_trained_on(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = rows({"a": [1, 1], "b": [0, 1], "c": [0]}, {"a": [0, 1], "b": [0, 1], "c": [1]}, trained={"a", "b"})
    print_table(found, means_of(found), Path("somewhere"))
    lines = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    first = {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines if line[0].strip()}
    assert list(first) == ["a", "b", "c (not trained on)", "mean"]
    assert first["mean"][3] == "0.5000"
    assert first["c (not trained on)"] == ["1", "acc", "0.0000", "1.0000", "-1.0000"]


def test_one_mean_where_nothing_says_what_was_trained_on():
    found = rows({"a": [1, 1], "b": [0, 1]})
    assert [row.mark for row in found] == ["", ""]
    assert [(mean.value, mean.trained) for mean in means_of(found)] == [(0.75, None)]
    assert means_of(found[:1]) == []


def test_trained_tasks_are_those_of_the_recipe_with_training_examples(tmp_path):
    tasks = loaded(["a"], members={"mmlu": ("mmlu_anatomy", "mmlu_virology")})
    assert trained_tasks(None, tasks) is trained_tasks(str(tmp_path), tasks) is None
    entries = [
        {"source": "lm_eval:mmlu"},
        {"source": "lm_eval:anli"},
        {"source": "lm_eval:boolq", "train_examples": 0},
        {"source": "file:boolq"},
        {"source": "lm_eval:of_an_older_version"},
    ]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"tasks": entries}))
    expected = {"mmlu_anatomy", "mmlu_virology", "anli_r1", "anli_r2", "anli_r3"}
    assert trained_tasks(str(tmp_path), tasks) == expected
