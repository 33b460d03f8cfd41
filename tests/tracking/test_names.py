"""Names that MLflow takes, and that stay apart."""

from __future__ import annotations

import itertools

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
def test_metrics_of_one_task_keep_their_last_part_and_a_common_folder(task):
    ends = ("accuracy", "standard_error", "n")
    folders, lasts = zip(*(mlflow_name(f"eval/{task}/{end}").rsplit("/", 1) for end in ends), strict=True)
    assert lasts == ends
    common = {folder[:200] for folder in folders}
    assert len(common) == 1
    assert all(a[-8:] == b[-8:] for a, b in itertools.pairwise(folders))
