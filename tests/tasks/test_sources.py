from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import SOURCES


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{i} + 1 =", "answer": str(i + 1)}) for i in range(40)))
    return path


KNOWN = ", ".join(f"{prefix}:" for prefix in SOURCES)


@pytest.mark.parametrize("source", ["foo:bar", "letter_counting", "", ":x"])
def test_unknown_prefix_names_the_known_ones(source):
    assert TaskConfig(source).problems() == [f"source: {source!r} does not begin with a known prefix; known: {KNOWN}"]


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


def test_evaluation_source_of_another_kind(sums):
    assert TaskConfig(f"file:{sums}", evaluation_source="gym:aiw").problems() == [
        "evaluation_source: 'gym:aiw' does not begin with file:"
    ]


def test_nothing_to_train_or_evaluate_on():
    (problem,) = TaskConfig("gym:aiw", train_examples=0, evaluation_examples=0).problems()
    assert problem.startswith("train_examples: is 0 and so is evaluation_examples")


def test_settings_without_effect_are_named(sums):
    gym = TaskConfig("gym:aiw", evaluation_source=f"file:{sums}", evaluation_fraction=0.5, columns={"a": "b"})
    assert gym.problems() == [
        f"{field}: has no effect with source gym:aiw and evaluation_source file:{sums}; remove it"
        for field in ("evaluation_source", "evaluation_fraction", "columns")
    ]
    assert TaskConfig(f"file:{sums}", options={"a": 1}).problems() == [
        f"options: has no effect with source file:{sums}; remove it"
    ]
    both = TaskConfig(f"file:{sums}", evaluation_source=f"file:{sums}", evaluation_fraction=0.5)
    assert both.problems() == [
        f"evaluation_fraction: has no effect with source file:{sums} and evaluation_source file:{sums}; remove it"
    ]


@pytest.mark.parametrize(
    "bad", [{"weight": 0}, {"weight": float("inf")}, {"train_examples": -1}, {"evaluation_fraction": 1}, {"sed": 1}]
)
def test_values_that_no_source_can_take(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        TaskConfig("gym:aiw", **bad)


def test_fraction_without_effect_where_one_side_is_all():
    for settings in ({"train_examples": 0}, {"evaluation_examples": 0}):
        config = TaskConfig("hub:a/b", evaluation_fraction=0.5, **settings)
        assert config.problems() == ["evaluation_fraction: has no effect with source hub:a/b; remove it"]
