"""What tags say of a run's code and recipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trex_ds.tracking.origin import recipe_hash

PACKAGE = Path(__file__).parents[2] / "trex_ds"
ASK = "from trex_ds.tracking.origin import git_commit; print(git_commit())"


def commit_of(folder: Path) -> str:
    command = [sys.executable, "-c", ASK]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, check=True, capture_output=True, text=True
    ).stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_is_that_of_the_packages_own_repository(tmp_path):
    package = tmp_path / "trex_ds"
    (package / "tracking").mkdir(parents=True)
    for name in ("version.py", "tracking/origin.py"):
        (package / name).write_text((PACKAGE / name).read_text())
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == "trex_ds 0.1.0"  # it lies in a repository, but is no part of it
    git(tmp_path, "add", "trex_ds/version.py", "trex_ds/tracking/origin.py")
    git(tmp_path, "commit", "-q", "-m", "all")
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    (package / "version.py").write_text('__version__ = "0.2.0"')
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_hash_of_a_recipe_depends_on_all_but_where_results_go():
    recipe = {"output_dir": "a", "tracking": {"uri": None}, "training": {"learning_rate": 1e-3, "max_steps": 3}}
    same = {"training": {"max_steps": 3, "learning_rate": 1e-3}, "output_dir": "b", "tracking": {}}
    assert recipe_hash(recipe) == recipe_hash(same)
    assert recipe_hash(recipe) != recipe_hash(recipe | {"training": {"learning_rate": 1e-3, "max_steps": 4}})
    assert len(recipe_hash(recipe)) == 12
