"""Detection of the tests that start processes: by their code, so that nobody has to mark them."""

from __future__ import annotations

import multiprocessing
import subprocess
from collections.abc import Iterator
from functools import cache
from multiprocessing.context import BaseContext
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
import torch.multiprocessing

STARTERS: tuple[ModuleType, ...] = (subprocess, multiprocessing, torch.multiprocessing)


def starts_processes(item: pytest.Function) -> bool:
    """Whether a test or one of its fixtures starts a process, by itself or through a function of `tests`."""
    fixtures = [each.func for defined in item._fixtureinfo.name2fixturedefs.values() for each in defined]
    return any(starts(function) for function in (item.function, *fixtures))


@cache
def starts(function: Any) -> bool:
    """Whether a function names a module that starts processes, or a function or class of `tests` that does."""
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        for found in _mentions(waiting.pop()):
            if any(found is starter for starter in STARTERS) or isinstance(found, BaseContext):
                return True
            if id(found) not in seen and str(getattr(found, "__module__", "")).startswith("tests."):
                seen.add(id(found))
                waiting.append(found)
    return False


def _mentions(thing: Any) -> Iterator[Any]:
    """What the code of a function, or of all methods of a class, finds by a global name or in a module."""
    if isinstance(thing, type):
        functions = [getattr(value, "__func__", value) for value in vars(thing).values()]
    else:
        functions = [getattr(thing, "__wrapped__", thing)]
    for function in functions:
        if isinstance(function, FunctionType):
            names = set(_names(function.__code__))
            for name in names & function.__globals__.keys():
                found = function.__globals__[name]
                yield found
                if isinstance(found, ModuleType):
                    yield from (value for key, value in vars(found).items() if key in names)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
