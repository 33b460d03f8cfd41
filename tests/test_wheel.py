"""The package as a stranger gets it: a wheel, installed, in a folder without a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.training.jobs import losses, write_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy, because setuptools builds in the folder of the sources.
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "trex_ds", folder / "trex_ds", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", "dist", "."], cwd=folder, check=True)
    (made,) = (folder / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def program(wheel, tmp_path_factory) -> Path:
    """`trex-ds`, from the wheel in an environment that sees this one's libraries after its own."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel)], check=True)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return environment / "bin" / "trex-ds"


@pytest.fixture
def run(program, tmp_path):
    """Run the program, or another command of its environment, in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RANK", "LOCAL_RANK")}
    own |= {"PYTHONSAFEPATH": "1", "DS_ACCELERATOR": "cpu", "COLUMNS": "100"}

    def run(*arguments: str, command: str = program.name) -> subprocess.CompletedProcess[str]:
        given = [str(program.parent / command), *arguments]
        return subprocess.run(given, cwd=folder, env=own, capture_output=True, text=True, check=False)

    return run


def test_it_holds_every_file_of_the_package(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("trex_ds/")}
    files = {file for file in (ROOT / "trex_ds").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file.suffix for file in files} == {".py", ".json", ".yaml"}
    assert held == {str(file.relative_to(ROOT)) for file in files}


def test_it_is_the_wheel_that_is_used(run, program):
    done = run("-c", "import trex_ds; print(trex_ds.__file__)", command="python")
    assert Path(done.stdout.strip()).is_relative_to(program.parents[1])


def test_help_and_recipes(run, tmp_path):
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n  train     Train an adapter as a recipe says.\n" in done.stdout
    assert "quickstart" in run("recipes").stdout
    assert run("recipes", "copy", "quickstart", "mine.yaml").returncode == 0
    schema, rest = (tmp_path / "empty" / "mine.yaml").read_text().split("\n", 1)
    assert Path(schema.partition("$schema=file://")[2]).is_file()
    assert rest == (ROOT / "launch" / "recipes" / "quickstart.yaml").read_text().split("\n", 1)[1]
    again = run("recipes", "copy", "quickstart", "mine.yaml")
    assert again.returncode == 2
    assert "mine.yaml exists" in again.stderr


@pytest.mark.parametrize("config", ["quickstart", "mine.yaml"])
def test_a_wrong_recipe_is_refused(run, config):
    run("recipes", "copy", "quickstart", "mine.yaml")
    done = run("train", "--config", config, "--training.deepspeed", "zero3_bf61", "--training.max_steps", "x")
    assert done.returncode == 2
    assert "--training.max_steps: must be a whole number, got" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("train", "--config", config, "--training.deepspeed", "zero3_bf61")
    assert "--training.deepspeed: no file 'zero3_bf61'" in done.stderr
    assert "did you mean zero3_bf16?" in done.stderr


def test_data_is_checked_and_an_adapter_trained(run, tmp_path):
    recipe = write_recipe(tmp_path, training__deepspeed="zero3_fp32_cpu", training__max_steps=2)
    checked = run("validate", "--config", str(recipe))
    assert checked.returncode == 0, checked.stderr
    trained = run("train", "--config", str(recipe))
    assert trained.returncode == 0, trained.stderr
    assert len(losses(tmp_path / "run")) == 2
    assert "deepspeed: zero3_fp32_cpu\n" in (tmp_path / "run" / "adapter" / "recipe.yaml").read_text()
