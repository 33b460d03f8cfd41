"""Private names of libraries: each is there in the installed versions, in the ledger, and in a library with a bound."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import trex_ds
from tests.private_names import LEDGER, Private

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "trex_ds").rglob("*.py"))
# Documented, though they begin with an underscore.
PUBLIC = {"_exit"}


@pytest.mark.parametrize("private", LEDGER, ids=lambda p: f"{Path(p.file).stem}-{p.owner}-{p.name}")
def test_it_is_there_and_used(private: Private):
    assert re.search(rf"\b{private.name}\b", (ROOT / private.file).read_text()), "the ledger names what is not used"
    module, _, path = private.owner.partition(":")
    owner = importlib.import_module(module)
    for part in filter(None, path.split(".")):
        owner = getattr(owner, part)
    # What only instances have is found where they are given it.
    assert hasattr(owner, private.name) or re.search(rf"\b{private.name}\b", inspect.getsource(owner))


def defined_in(tree: ast.Module) -> set[str]:
    """Names that a file defines itself: functions, classes, variables, attributes of self and fields."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def used_in(tree: ast.Module) -> Iterator[str]:
    """Names with an underscore in front that are taken from something, imported, or looked up by their text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("trex_ds"):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "mock.patch.object"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            yield str(node.slice.value)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT / "trex_ds")))
def test_every_private_name_that_a_file_uses_is_in_the_ledger(file):
    tree = ast.parse(file.read_text())
    known = {private.name for private in LEDGER if ROOT / private.file == file}
    used = {name for name in used_in(tree) if re.match(r"_[A-Za-z]", name)} - defined_in(tree) - PUBLIC
    assert used <= known
    if "mock.patch" in file.read_text():
        assert any(private.why.startswith("replaced") for private in LEDGER if ROOT / private.file == file)


def overridden() -> Iterator[tuple[str, str]]:
    """Private methods of libraries that a class of the package has its own of: file and name."""
    for info in pkgutil.walk_packages(trex_ds.__path__, "trex_ds."):
        module = importlib.import_module(info.name)
        file = str(Path(str(module.__file__)).relative_to(ROOT))
        for cls in vars(module).values():
            if not inspect.isclass(cls) or cls.__module__ != info.name:
                continue
            for name, value in vars(cls).items():
                bases = [base for base in cls.__mro__[1:] if not base.__module__.startswith("trex_ds")]
                if re.match(r"_[A-Za-z]", name) and inspect.isfunction(value) and any(name in vars(b) for b in bases):
                    yield file, name


def test_every_private_method_that_is_overridden_is_in_the_ledger():
    found = set(overridden())
    assert ("trex_ds/training/trainer.py", "_save") in found
    assert found <= {(private.file, private.name) for private in LEDGER}


def test_their_libraries_have_upper_bounds():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"] + "".join(setup["options.extras_require"].values())
    bounded = {re.split(r"[<>=]", line)[0].lower() for line in required.splitlines() if "<" in line or "==" in line}
    assert {private.library for private in LEDGER} <= bounded
