from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from trex_ds.tasks import TaskConfig, load_tasks


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{i} + 1 =", "answer": str(i + 1)}) for i in range(40)))
    return path


@pytest.mark.parametrize("source", ["foo:bar", "letter_counting", "", ":x"])
def test_unknown_prefix_names_the_known_ones(source):
    assert TaskConfig(source).problems() == [
        f"source: {source!r} does not begin with a known prefix; known: gym:, file:"
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("leter_counting", "did you mean gym:letter_counting?"), ("qqqq", "reasoning-gym's GALLERY.md shows all")],
)
def test_misspelt_gym_task(name, hint):
    assert TaskConfig(f"gym:{name}").problems() == [f"source: reasoning-gym has no task {name!r}; {hint}"]


def test_sound_configs_have_no_problems(sums):
    assert TaskConfig("gym:letter_counting", options={"max_words": 5, "min_words": 2}).problems() == []
    assert TaskConfig(f"file:{sums}", evaluation_fraction=0.2).problems() == []
    assert TaskConfig(f"file:{sums}", evaluation_source=f"file:{sums}").problems() == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_word": 5}, "gym:letter_counting has no option 'max_word'; did you mean max_words?"),
        ({"qqqq": 5}, "gym:letter_counting has no option 'qqqq'; known: min_words, max_words"),
        ({"min_words": 9, "max_words": 3}, "does not take {'min_words': 9, 'max_words': 3}: max_words must be"),
        ({"min_words": "two"}, "does not take {'min_words': 'two'}: "),
        ({"seed": 3}, "'seed' is given by seed of the task, not here"),
        ({"size": 3}, "'size' is given by train_examples and evaluation_examples of the task, not here"),
    ],
)
def test_options_that_a_gym_task_does_not_take(options, problem):
    (line,) = TaskConfig("gym:letter_counting", options=options).problems()
    assert line.startswith("options: ")
    assert problem in line


def test_files_that_do_not_exist(sums, tmp_path):
    config = TaskConfig(f"file:{tmp_path}/no.jsonl", evaluation_source=f"file:{tmp_path}")
    assert config.problems() == [
        f"source: no file '{tmp_path}/no.jsonl' in {Path.cwd()}",
        f"evaluation_source: no file '{tmp_path}' in {Path.cwd()}",
    ]
    assert TaskConfig(f"file:{sums}", evaluation_source="gym:aiw").problems() == [
        "evaluation_source: 'gym:aiw' does not begin with file:"
    ]


def test_settings_without_effect_are_named(sums):
    gym = TaskConfig("gym:aiw", evaluation_source=f"file:{sums}", evaluation_fraction=0.5)
    assert gym.problems() == [
        f"{field}: has no effect with source gym:aiw and evaluation_source file:{sums}; remove it"
        for field in ("evaluation_source", "evaluation_fraction")
    ]
    assert TaskConfig(f"file:{sums}", options={"a": 1}).problems() == [
        f"options: has no effect with source file:{sums}; remove it"
    ]
    both = TaskConfig(f"file:{sums}", evaluation_source=f"file:{sums}", evaluation_fraction=0.5)
    assert both.problems() == [
        f"evaluation_fraction: has no effect with source file:{sums} and evaluation_source file:{sums}; remove it"
    ]


@pytest.mark.parametrize(
    "bad", [{"weight": 0}, {"weight": float("inf")}, {"train_examples": 0}, {"evaluation_fraction": 1}, {"sed": 1}]
)
def test_values_that_no_source_can_take(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        TaskConfig("gym:aiw", **bad)


def test_loading_names_the_problems_of_all_configs(tmp_path):
    with pytest.raises(ValueError, match=r"tasks.0.source: 'x' does not.*\ntasks.2.source: no file") as caught:
        load_tasks([TaskConfig("x"), TaskConfig("gym:aiw"), TaskConfig(f"file:{tmp_path}/no")])
    assert len(str(caught.value).splitlines()) == 2


def test_loading_nothing_is_refused():
    with pytest.raises(ValueError, match="tasks: empty"):
        load_tasks([])


def test_two_tasks_of_one_name_are_refused(sums, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(sums.read_text().replace('"answer"', '"task": "sums", "answer"'))
    with pytest.raises(ValueError, match=rf"two tasks are named 'sums': one of file:{sums}, one of file:{other}"):
        load_tasks([TaskConfig(f"file:{sums}"), TaskConfig(f"file:{other}")])


def test_tasks_come_in_the_order_of_the_configs(sums):
    gym = TaskConfig("gym:letter_counting", train_examples=5, evaluation_examples=5, weight=0.5)
    tasks = load_tasks([gym, TaskConfig(f"file:{sums}", weight=2)])
    assert [(task.name, task.weight) for task in tasks] == [("letter_counting", 0.5), ("sums", 2.0)]
