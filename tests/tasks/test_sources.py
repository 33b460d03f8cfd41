from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.tasks import mirrors
from tests.tasks.reading import problems_of, write
from tests.tasks.reading import sums as rows_of_sums
from trex_ds.tasks import registry
from trex_ds.tasks.base import Example, Split, exact_match
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.registry import kinds, register
from trex_ds.tasks.source import Source, source_of


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{i} + 1 =", "answer": str(i + 1)}) for i in range(40)))
    return path


KNOWN = ", ".join(f"{prefix}:" for prefix in kinds())


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
    assert problems_of(TaskConfig("gym:letter_counting", options={"max_words": 5, "min_words": 2})) == []
    assert problems_of(TaskConfig(f"file:{sums}", evaluation_fraction=0.2)) == []
    assert problems_of(TaskConfig(f"file:{sums}", evaluation_source=f"file:{sums}")) == []


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
    (line,) = problems_of(TaskConfig("gym:letter_counting", options=options))
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


def test_a_kind_of_source_is_one_class(monkeypatch):
    monkeypatch.setattr(registry, "_KINDS", dict(kinds()))

    @register("planted")
    class PlantedSource(Source):
        def problems(self) -> list[str]:
            return [] if self.location.isdigit() else [f"source: {self.location!r} is no number"]

        def no_effect(self) -> list[str]:
            return ["options"]

        def fingerprint(self) -> str:
            return "1"

        def examples(self) -> Iterator[tuple[Split, Example]]:
            yield from (("train", Example(f"{i} + 1 =", str(i + 1), "planted")) for i in range(int(self.location)))

    assert TaskConfig("planted:many", options={"a": 1}).problems() == [
        "options: has no effect with source planted:many; remove it",
        "source: 'many' is no number",
    ]
    assert problems_of(TaskConfig("planted:3")) == []
    source = source_of(TaskConfig("planted:3"))
    assert [example.prompt for _, example in source.examples()] == ["0 + 1 =", "1 + 1 =", "2 + 1 ="]
    assert source.scorer() is exact_match
    known = ", ".join(sorted([*KNOWN.split(", "), "planted:"]))
    (problem,) = TaskConfig("foo:bar").problems()
    assert problem == f"source: 'foo:bar' does not begin with a known prefix; known: {known}"
    with pytest.raises(ValueError, match="two kinds of source have the prefix gym: "):
        register("gym")(PlantedSource)


def test_wrong_entries_are_refused_without_the_sources_libraries():
    program = """
import sys
from trex_ds.tasks.config import TaskConfig
entries = ("gym:chain_sums", "gym:chain_sum", "hub:a/b/c", "file:none.jsonl", "lm_eval:boolq", "foo:bar")
print([len(TaskConfig(source, options={"no_such": 1}).problems()) for source in entries])
heavy = ("torch", "numpy", "datasets", "pyarrow", "reasoning_gym", "lm_eval", "transformers")
print([name for name in heavy if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[1, 1, 2, 2, 1, 1]", "[]"]


SMALL: dict[str, Callable[[Path], dict[str, Any]]] = {
    "file": lambda folder: {"source": write(folder / "sums.jsonl", rows_of_sums(0, 40))},
    "gym": lambda folder: {"source": "gym:spell_backward", "train_examples": 5, "evaluation_examples": 3},
    "hub": lambda folder: {
        "source": "hub:aps/super_glue",
        "options": {"config": "multirc"},
        "columns": MULTIRC,
        "evaluation_fraction": 0.5,
    },
    "lm_eval": lambda folder: {"source": "lm_eval:boolq"},
}
"""Settings of a small entry of each kind, where `folder` is empty but for a mirror of the hub, `folder / "mirror"`."""

MULTIRC: dict[str, str] = {"prompt": "paragraph", "answer": "answer"}


def test_every_kind_has_a_small_entry():
    assert SMALL.keys() == kinds().keys()


@pytest.mark.parametrize("kind", SMALL)
def test_what_all_kinds_have_in_common(kind, tmp_path):
    mirror = str(mirrors.write_mirror(tmp_path / "mirror"))
    config = TaskConfig(**SMALL[kind](tmp_path))
    assert problems_of(config) == []
    source = source_of(config, mirror)
    assert set(source.no_effect()) < {field.name for field in fields(TaskConfig)}
    assert source.fingerprint() == source_of(config, mirror).fingerprint()
    found = list(source.examples())
    assert found == list(source_of(config, mirror).examples())
    assert {split for split, _ in found} == {"train", "evaluation"}
    assert not {e.text for split, e in found if split == "train"} & {e.text for s, e in found if s == "evaluation"}
    assert {example.plain for _, example in found} == {source.plain}
    json.dumps([example.record for _, example in found])
    if scorer := source.scorer():
        assert {scorer(example, example.answer) for _, example in found} == {1.0}
        assert scorer(found[0][1], "zqxv") == 0.0
    source.keep_for_evaluation(tmp_path / "kept")
    assert (tmp_path / "kept").is_dir() == (scorer is None)
    capped = source_of(replace(config, train_examples=2, evaluation_examples=2), mirror)
    assert Counter(split for split, _ in capped.examples()) == {"train": 2, "evaluation": 2}
