"""The `adapter` section of a recipe: one class a method, chosen by `adapter.method`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Discriminator, Tag

from trex_ds import methods
from trex_ds.methods.base import METHODS, Method
from trex_ds.methods.trex import TRex

# Every module of the room enters its methods in METHODS, so that a new one is found without being listed.
for _module in pkgutil.iter_modules(methods.__path__):
    if _module.name != "config":
        import_module(f"{methods.__name__}.{_module.name}")


def _method_of(value: Any) -> Any:
    if isinstance(value, dict):
        return str(value.get("method", "trex"))  # as text, so that null or a list is refused by its name
    return getattr(value, "method", "trex")


if TYPE_CHECKING:
    AdapterConfig: TypeAlias = Method
else:
    AdapterConfig = Annotated[
        Union[tuple(Annotated[cls, Tag(name)] for name, cls in METHODS.items())],  # noqa: UP007 (made at run time)
        Discriminator(_method_of),
    ]
"""The type of a recipe's `adapter` section; without `method` it is T-REX's."""


def default_adapter() -> TRex:
    """T-REX in the paper's setting."""
    return TRex()
