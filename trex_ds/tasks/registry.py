"""The kinds of task source, each under the prefix that names it in a recipe, as gym: in `gym:chain_sum`.

A leaf: it knows no kind, so that a recipe's section can ask for one, and every kind can import that section.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=type)

_BUILT_IN = "trex_ds.tasks.sources"
_KINDS: dict[str, type[Any]] = {}


def register(prefix: str) -> Callable[[Kind], Kind]:
    """Make a subclass of `trex_ds.tasks.source.Source` the kind of all sources that begin with `prefix` and a colon.

    Raises:
        ValueError: another class has the prefix.
    """

    def add(kind: Kind) -> Kind:
        if _KINDS.setdefault(prefix, kind) is not kind:
            raise ValueError(f"two kinds of source have the prefix {prefix}: {_KINDS[prefix]} and {kind}")
        return kind

    return add


def kinds() -> Mapping[str, type[Any]]:
    """Every kind by its prefix: those of the modules in trex_ds/tasks/sources, and what else was registered."""
    _import_built_in()
    return dict(sorted(_KINDS.items()))


@cache
def _import_built_in() -> None:
    for module in pkgutil.iter_modules(import_module(_BUILT_IN).__path__):
        import_module(f"{_BUILT_IN}.{module.name}")
