"""Checks of field values: each returns a line `field: what is wrong, got value` for every named field that fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

WHOLE = "must be a whole number of at least 1"
POSITIVE = "must be a finite number above 0"


def check(values: object, names: tuple[str, ...], is_allowed: Callable[[Any], bool], what: str) -> list[str]:
    """A line for each of these attributes that is not None and not allowed."""
    given = {name: getattr(values, name) for name in names}
    return [
        f"{name}: {what}, got {value!r}" for name, value in given.items() if value is not None and not is_allowed(value)
    ]


def whole(values: object, *names: str) -> list[str]:
    """Whole numbers of at least 1."""
    return check(values, names, lambda value: isinstance(value, int) and value >= 1, WHOLE)


def positive(values: object, *names: str) -> list[str]:
    """Finite numbers above 0."""
    return check(values, names, lambda value: 0 < value < math.inf, POSITIVE)


def not_negative(values: object, *names: str) -> list[str]:
    """Numbers of at least 0."""
    return check(values, names, lambda value: value >= 0, "must be at least 0")


def dropout(values: object, *names: str) -> list[str]:
    """Probabilities below 1."""
    return check(values, names, lambda value: 0 <= value < 1, "must lie in [0, 1)")


def at_most(values: object, name: str, limit: str) -> list[str]:
    """A field that must not be larger than another one."""
    most = getattr(values, limit)
    return check(values, (name,), lambda value: value <= most, f"must be at most {limit} = {most}")


def one_of(values: object, name: str, literal: Any) -> list[str]:
    """A field that takes the values of a `Literal`."""
    known = get_args(literal)
    return check(values, (name,), lambda value: value in known, f"must be one of {', '.join(known)}")


def places(values: object) -> list[str]:
    """The fields that say what is adapted, where `values` has them."""
    found = []
    if hasattr(values, "target_modules"):
        found += check(values, ("target_modules",), bool, "names nothing; name modules, or leave it out")
    if hasattr(values, "layers_to_transform"):
        what = "must be indices of layers, which begin at 0; null: all layers"
        found += check(values, ("layers_to_transform",), _are_layers, what)
    return found


def _are_layers(value: list[int] | int) -> bool:
    return value != [] and min(value if isinstance(value, list) else [value]) >= 0
