"""The command line: what `--help` shows, options without a recipe, and what is blamed on whom."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Discriminator, Field, Tag

from trex_ds.config import ConfigError, read_flags, read_recipe, section


@section
class Task:
    """One task."""

    name: str
    weight: float = 1.0
    """How often an example is seen in an epoch."""


@section
class Training:
    """The optimization."""

    learning_rate: float = 1e-4
    """Peak learning rate."""
    epochs: Annotated[int, Field(gt=0)] = 1
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    folder: Path = Path("runs")


@section
class Recipe:
    model: str
    training: Training = field(default_factory=Training)
    tasks: list[str | Task] = field(default_factory=list)
    extra: Training | None = None


@pytest.fixture
def shown(capsys, monkeypatch):
    """What `--help` prints in a terminal of 60 columns."""

    def shown(schema: type, *argv: str) -> str:
        monkeypatch.setenv("COLUMNS", "60")
        with pytest.raises(SystemExit) as caught:
            read_recipe(schema, [*argv, "--help"], "Train it.\n\nExamples:\n    trex-ds train --config r.yaml")
        assert caught.value.code == 0
        return capsys.readouterr().out

    return shown


def test_help_shows_every_field_with_type_default_and_description(shown):
    text = shown(Recipe)
    assert text.startswith("Train it.\n\nExamples:\n    trex-ds train --config r.yaml\n\n  --model  str  (required)\n")
    assert "\n  --training.learning_rate  float = 0.0001\n      Peak learning rate.\n" in text
    assert '\n  --training.scheduler  cosine | linear | constant =\n          "cosine"\n' in text
    assert '\n  --training.folder  Path = "runs"\n' in text
    assert "\n  --tasks  list[str | section] = []\n" in text
    assert "\n\ntasks.N: One task.\n  --tasks.N.name  str  (required)\n  --tasks.N.weight  float = 1.0\n" in text
    assert "\n  --extra  section | null = null\n" in text
    assert max(map(len, text.splitlines())) <= 60


@section
class Simple:
    method: Literal["simple"] = "simple"
    size: int = 1


@section
class Routed:
    method: Literal["routed"] = "routed"
    experts: int = 4


@section
class Methods:
    adapter: Annotated[
        Annotated[Simple, Tag("simple")] | Annotated[Routed, Tag("routed")],
        Discriminator(lambda value: value.get("method", "simple") if isinstance(value, dict) else value.method),
    ] = field(default_factory=Simple)
    """How it is done."""


def test_help_is_of_the_method_that_the_file_or_the_command_line_chooses(shown, tmp_path):
    assert "--adapter.size" in shown(Methods)
    assert "--adapter.experts" not in shown(Methods)
    (tmp_path / "r.yaml").write_text("adapter: {method: routed}")
    for given in (["--adapter.method", "routed"], ["--adapter", "{method: routed}"], [f"--config={tmp_path}/r.yaml"]):
        text = shown(Methods, *given)
        assert "--adapter.size" not in text
        assert "\n  --adapter.experts  int = 4\n" in text
        assert "adapter, with method routed: How it is done. Methods:" in text
    with pytest.raises(ConfigError, match=r'method must be one of simple, routed, got "ruoted"; did you mean routed\?'):
        read_recipe(Methods, ["--adapter.method", "ruoted", "--help"], "")


@section
class Switches:
    on: bool = False
    number: int = 0
    words: list[str] = field(default_factory=list)


def test_a_field_that_is_true_or_false_needs_no_value(tmp_path):
    (tmp_path / "r.yaml").write_text("number: 3")
    config = ["--config", str(tmp_path / "r.yaml")]
    assert read_recipe(Switches, [*config, "--on"], "") == Switches(on=True, number=3)
    assert read_recipe(Switches, ["--on", *config], "") == Switches(on=True, number=3)
    assert read_recipe(Switches, ["--on", "false", *config], "") == Switches(number=3)
    with pytest.raises(ConfigError, match="'maybe': not understood"):
        read_recipe(Switches, ["--on", "maybe", *config], "")


def test_flags_are_read_without_a_recipe():
    given = ["one", "--on", "--number=2", "two words", "--local_rank=0", "--", "--three"]
    assert read_flags(Switches, given, "", "words") == Switches(True, 2, ["one", "two words", "--three"])
    assert read_flags(Switches, [], "") == Switches()
    with pytest.raises(ConfigError) as caught:
        read_flags(Switches, ["stray", "--number", "x", "--nubmer=1", "--config", "r.yaml"], "")
    assert caught.value.problems == [
        "'stray': not understood; options look like --name VALUE",
        '--number: must be a whole number, got "x" (command line)',
        "--nubmer: unknown key; did you mean --number? (command line)",
        "--config: unknown key; known here: --on, --number, --words (command line)",
    ]


@section
class Both:
    kind: str = "a"
    training: Training = field(default_factory=Training)

    def problems(self) -> list[str]:
        return [f"training.epochs: {self.training.epochs} do not go with kind {self.kind}"]


def test_what_the_command_line_gave_is_blamed_on_it(tmp_path):
    (tmp_path / "r.yaml").write_text("kind: a\ntraining: {epochs: 3}")
    said = []
    for override in ([], ["--kind", "b"], ["--training.epochs", "4"]):
        with pytest.raises(ConfigError) as caught:
            read_recipe(Both, ["--config", str(tmp_path / "r.yaml"), *override], "")
        said += caught.value.problems
    assert [line.replace(f"{tmp_path}/", "") for line in said] == [
        "training.epochs: 3 do not go with kind a (r.yaml:2)",
        "training.epochs: 3 do not go with kind b (r.yaml:2; --kind: command line)",
        "--training.epochs: 4 do not go with kind a (command line)",
    ]
