"""Names that MLflow takes, and that stay apart."""

from __future__ import annotations

import pytest

from trex_ds.tracking.names import mlflow_name

LONG = "x" * 300


@pytest.mark.parametrize("name", ["train/loss", "eval/sum 2.0-b/n", "a:b", "x/é", "y" * 250])
def test_a_name_that_mlflow_takes_stays(name):
    assert mlflow_name(name) == name


@pytest.mark.parametrize(
    "names",
    [
        ("eval/en?de/accuracy", "eval/en!de/accuracy", "eval/en_de/accuracy"),
        ("C#", "C+", "C_"),
        ("a//b", "a/b", "a/./b", "/a/b", "a/b/"),
        ("", ".", "..", "_"),
        (f"eval/{LONG}a/n", f"eval/{LONG}b/n"),
        (f"{LONG}a", f"{LONG}b", f"{LONG}/a", f"{LONG}/b"),
        ("a\nb", "a\tb", "a b", "a\n\nb", "a\nb\n"),
        ("..x", "_..x", "eval/\ud800/n", "eval/\ud801/n"),
    ],
)
def test_other_names_become_ones_that_it_takes_and_stay_apart(names):
    from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

    found = [mlflow_name(name) for name in names]
    assert len(set(found)) == len(names)
    for name in found:
        _validate_metric_name(name)
        _validate_tag_name(name)
        assert len(name) <= 250
        assert mlflow_name(name) == name


@pytest.mark.parametrize("task", ["en?de", "a//b", LONG, 'say "hi"', "line\nbreak"])
def test_a_task_has_one_name_in_all_of_its_metrics(task):
    ends = ("eval/{}/accuracy", "eval/{}/standard_error", "eval/{}/n", "data/{}/rows")
    found = [mlflow_name(end.format(task)) for end in ends]
    for name, end in zip(found, ends, strict=True):
        first, last = end.split("/{}/")
        assert name.startswith(f"{first}/")
        assert name.endswith(f"/{last}")
    tasks = [name.split("/", 1)[1].rpartition("/")[0] for name in found]
    assert len({task[-8:] for task in tasks}) == 1
    assert len({task[:200] for task in tasks}) == 1
