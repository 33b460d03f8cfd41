"""Recipes: what is accepted, and how everything that is wrong is said at once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from trex_ds.config import ConfigError, flatten, read_recipe, run_or_exit, section, to_dict


@section
class Task:
    """One task."""

    name: str
    weight: float = 1.0
    """How often an example is seen in an epoch."""

    def problems(self) -> list[str]:
        return [f"name: no such task {self.name!r}"] if self.name.startswith("no_") else []

    def library_problems(self) -> list[str]:
        return [f"name: the library has no {self.name!r}"] if self.name.endswith("_unknown") else []


@section
class Training:
    learning_rate: float = 1e-4
    """Peak learning rate."""
    epochs: Annotated[int, Field(gt=0)] = 1
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: int | Literal["auto"] = "auto"
    folder: Path = Path("runs")
    run_name: str | None = None

    def problems(self) -> list[str]:
        return ["epochs: too many", "looks wrong as a whole"] if self.epochs == 1000 else []


@section
class Recipe:
    model: str
    training: Training = field(default_factory=Training)
    tasks: list[str | Task] = field(default_factory=list)
    limits: tuple[int, int] = (1, 2)
    extra: Training | None = None


BASE = "model: tiny\ntraining:\n  epochs: 3\ntasks:\n- name: a\n- b\n"


@pytest.fixture
def read(tmp_path):
    """Read a recipe of the given text with the given overrides."""

    def read(text: str, *argv: str) -> Recipe:
        file = tmp_path / "r.yaml"
        file.write_text(text)
        return read_recipe(Recipe, ["--config", str(file), *argv], "Test.")

    return read


@pytest.fixture
def problems(read, tmp_path):
    """The problems of a recipe, with the file's folder cut off."""

    def problems(text: str, *argv: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, *argv)
        return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]

    return problems


def test_file_and_overrides_are_merged(read):
    recipe = read(
        BASE,
        "--training.learning_rate=1e-3",
        "--training.warmup",
        "10",
        "--tasks.0.weight",
        "-2.5",
        "--limits",
        "[3, 4]",
        "--extra.folder=/data",
        "--local_rank=1",
    )
    assert recipe == Recipe(
        model="tiny",
        training=Training(learning_rate=1e-3, epochs=3, warmup=10),
        tasks=[Task(name="a", weight=-2.5), "b"],
        limits=(3, 4),
        extra=Training(folder=Path("/data")),
    )


def test_override_replaces_a_whole_list_and_a_later_override_works_on_that(read):
    recipe = read(BASE, "--tasks", "[{name: c}, d]", "--tasks.0.weight", "3")
    assert recipe.tasks == [Task(name="c", weight=3.0), "d"]


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", ".0001", "0.0001", "+1e-4"])
def test_floats_without_a_point_are_numbers(read, text):
    assert read(f"model: m\ntraining: {{learning_rate: {text}}}").training.learning_rate == 1e-4
    assert read("model: m", f"--training.learning_rate={text}").training.learning_rate == 1e-4


@pytest.mark.parametrize("text", ["no", "on", "2024-01-01", "12:30", "1e", "1.2.3", "null_model"])
def test_text_that_older_yaml_would_turn_into_something_else(read, text):
    assert read(f"model: {text}").model == text
    assert read("model: m", f"--model={text}").model == text


@pytest.mark.parametrize("text", ["123", "1e4", "true", "*.json", "a: b", "@x", "", "x # y"])
def test_override_of_a_text_field_is_taken_as_it_stands_when_yaml_reads_something_else(read, text):
    expected = "x" if text == "x # y" else text
    assert read("model: m", f"--model={text}").model == expected


def test_null_override(read):
    assert read("model: m\nextra: {epochs: 2}", "--extra", "null").extra is None


def test_all_problems_at_once_with_their_places(problems):
    text = (
        "training:\n"
        "  learing_rate: 0.1\n"
        "  epochs: 0\n"
        "  scheduler: cosin\n"
        "tasks:\n"
        "- name: no_task\n"
        "- wieght: 2\n"
        "limits: [1]\n"
    )
    assert sorted(problems(text, "--training.warmup", "soon", "--epochs=3")) == sorted(
        [
            "model: required, but missing; add it or give --model VALUE (r.yaml:1)",
            "training.learing_rate: unknown key; did you mean training.learning_rate? (r.yaml:2)",
            "training.epochs: must be more than 0, got 0 (r.yaml:3)",
            "training.scheduler: must be 'cosine', 'linear' or 'constant', got \"cosin\"; "
            "did you mean cosine? (r.yaml:4)",
            "--training.warmup: must be a whole number or 'auto', got \"soon\" (command line)",
            "tasks.1.name: required, but missing; add it or give --tasks.1.name VALUE (r.yaml:7)",
            "tasks.1.wieght: unknown key; did you mean tasks.1.weight? (r.yaml:7)",
            "limits.1: required, but missing (r.yaml:8)",
            "--epochs: unknown key; did you mean --training.epochs? (command line)",
        ]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("training: {epochs: '3'}", 'training.epochs: must be a whole number, got "3" (r.yaml:2)'),
        ("training: {epochs: 3.5}", "training.epochs: must be a whole number, got 3.5 (r.yaml:2)"),
        ("training: {epochs: true}", "training.epochs: must be a whole number, got true (r.yaml:2)"),
        ("training: {learning_rate: up}", 'training.learning_rate: must be a number, got "up" (r.yaml:2)'),
        ("training: [1]", "training: must be a section, got [1] (r.yaml:2)"),
        ("training:", "training: must be a section, got null (r.yaml:2)"),
        ("tasks: a", 'tasks: must be a list, got "a" (r.yaml:2)'),
        ("tasks: [3]", "tasks.0: must be text or a section, got 3 (r.yaml:2)"),
        (
            "zzz: 1",
            "zzz: unknown key; known here: model, training, tasks, limits, extra (r.yaml:2)",
        ),
        ("model: n", "model: given twice, first in line 1 (r.yaml:2)"),
        ("extra: {epochs: 1, epochs: 2}", "extra.epochs: given twice, first in line 2 (r.yaml:2)"),
        ("extra: !x 3", "extra: the YAML tag !x has no meaning here (r.yaml:2)"),
        ("extra: {[1]: 2}", "extra: a key must be a plain word (r.yaml:2)"),
    ],
)
def test_one_problem(problems, line, message):
    assert problems(f"model: m\n{line}\n") == [message]


def test_an_alternative_of_a_list_item_reports_only_its_own_error(problems):
    assert problems("model: m\ntasks:\n- name: a\n  weight: heavy\n") == [
        'tasks.0.weight: must be a number, got "heavy" (r.yaml:4)'
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stray"], "'stray': not understood; overrides look like --section.field value (command line)"),
        (["--model"], "--model: needs a value, as --model=VALUE (command line)"),
        (["--model", "--extra=null"], "--model: needs a value, as --model=VALUE (command line)"),
        (
            ["--tasks.2.weight=1"],
            "--tasks.2.weight: tasks is a list of 2 items, numbered from 0; '2' is not one of them (command line)",
        ),
        (
            ["--tasks.x=1"],
            "--tasks.x: tasks is a list of 2 items, numbered from 0; 'x' is not one of them (command line)",
        ),
        (
            ["--training.epochs.x=1"],
            "--training.epochs.x: training.epochs is a value, it has no fields (command line)",
        ),
        (
            ["--tasks=[a, {name: c}"],
            "--tasks: not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>', "
            "got '[a, {name: c}' (command line)",
        ),
    ],
)
def test_overrides_that_lead_nowhere(problems, argv, message):
    assert problems(BASE, *argv) == [message]


def test_an_item_of_a_list_that_the_file_lacks(problems):
    assert problems("model: m", "--tasks.0.weight=1") == [
        "--tasks.0.weight: the file has no list tasks; give it whole, as --tasks '[...]' (command line)"
    ]


def test_sections_check_themselves_and_nested_ones_name_their_path(problems):
    assert problems("model: m\ntraining:\n  epochs: 1000\ntasks:\n- name: ok\n- name: no_1\n") == [
        "training.epochs: too many (r.yaml:3)",
        "training: looks wrong as a whole (r.yaml:2)",
        "tasks.1.name: no such task 'no_1' (r.yaml:6)",
    ]


def test_sound_sections_check_themselves_though_another_is_wrong(problems):
    assert problems("model: 3\ntasks: [{name: no_1}]\ntraining: {epochs: 1000}\n", "--training.epochs=x") == [
        "model: must be text, got 3 (r.yaml:1)",
        '--training.epochs: must be a whole number, got "x" (command line)',
        "tasks.0.name: no such task 'no_1' (r.yaml:2)",
    ]


def test_syntax_error_names_file_and_line(problems):
    assert problems("model: m\ntasks: [a\nextra: null\n") == [
        "r.yaml:3:6: not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'"
    ]


def test_a_self_containing_alias_is_refused(problems):
    assert problems("model: m\ntasks: &a [*a]\n") == ["r.yaml: nested too deeply, or an alias that contains itself"]


def test_overriding_one_use_of_an_alias_leaves_the_other(read):
    recipe = read("model: m\ntraining: &t {epochs: 3}\nextra: *t\n", "--extra.epochs=4")
    assert (recipe.training.epochs, recipe.extra.epochs) == (3, 4)


def test_config_missing_or_not_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_recipe(Recipe, ["stray"], "Test.")
    assert caught.value.problems == [
        "'stray': not understood; overrides look like --section.field value (command line)",
        "--config: missing; give the recipe's YAML file, as --config FILE",
    ]
    with pytest.raises(ConfigError) as caught:
        read_recipe(Recipe, ["--config=none.yaml"], "Test.")
    assert caught.value.problems[0].startswith(f"--config: no file 'none.yaml' (relative to {tmp_path}); by name there")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    for unreadable in (".", "binary.yaml"):
        with pytest.raises(ConfigError, match=f"cannot read {unreadable}: "):
            read_recipe(Recipe, ["--config", unreadable], "Test.")


def test_message_has_a_header_and_one_line_a_problem():
    assert str(ConfigError(["a: x", "b: y"])) == "2 problems found\n  a: x\n  b: y"


def test_to_dict_is_plain_and_reads_back(read):
    recipe = read(BASE, "--training.learning_rate=.inf", "--training.folder=a/b")
    text = yaml.safe_dump(to_dict(recipe))
    assert read(text) == recipe


def test_flatten_uses_the_names_of_overrides():
    nested = {"a": {"b": 1, "c": {"d": None}}, "tasks": [{"x": 2}, "y"], "plain": [1, 2], "none": {}, "e": []}
    assert flatten(nested) == {
        "a.b": 1, "a.c.d": None, "tasks.0.x": 2, "tasks.1": "y", "plain": [1, 2], "none": {}, "e": [],
    }  # fmt: skip
    assert flatten({}) == {}


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, "error: 1 problem found\n  a: wrong\n"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, "error: 1 problem found\n  a: wrong\n"),
        ({"RANK": "1", "LOCAL_RANK": "1"}, ""),
        ({"LOCAL_RANK": "1"}, ""),
        ({"RANK": "8", "LOCAL_RANK": "0"}, "error on rank 8: 1 problem found\n  a: wrong\n"),
    ],
)
def test_run_or_exit_prints_on_rank_zero_and_ends_all_ranks(capsys, monkeypatch, environment, shown):
    def fail() -> None:
        raise ConfigError(["a: wrong"])

    monkeypatch.setattr("trex_ds.config._RANK_ZERO_FIRST_SECONDS", 0.0)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        run_or_exit(fail)
    assert caught.value.code == 2
    assert capsys.readouterr().err == shown


def test_run_or_exit_lets_other_errors_through():
    def fail() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_or_exit(fail)


def test_a_process_ends_with_code_2_without_a_traceback_and_without_importing_torch(tmp_path):
    script = tmp_path / "entry.py"
    script.write_text(
        "import sys\n"
        "from trex_ds.config import read_recipe, run_or_exit, section\n"
        "@section\n"
        "class Recipe:\n"
        "    seed: int\n"
        "assert 'torch' not in sys.modules\n"
        "run_or_exit(lambda: read_recipe(Recipe, sys.argv[1:], ''))\n"
    )
    (tmp_path / "r.yaml").write_text("sed: 1\n")
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    ended = subprocess.run(
        [sys.executable, str(script), "--config", str(tmp_path / "r.yaml")],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "did you mean seed?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_takes_a_library_is_checked_where_nothing_else_is_wrong(problems):
    text = "model: m\ntasks: [{name: a_unknown}, {name: %s}]"
    assert problems(text % "no_b") == ["tasks.1.name: no such task 'no_b' (r.yaml:2)"]
    assert problems(text % "b", "--extra.epochs", "0")[0].startswith("--extra.epochs: ")
    assert len(problems(text % "b", "--extra.epochs", "0")) == 1
    assert problems(text % "b") == ["tasks.0.name: the library has no 'a_unknown' (r.yaml:2)"]
