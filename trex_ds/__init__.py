"""T-REX adapters for LLMs, trained with DeepSpeed: see README.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trex_ds.version import __version__

if TYPE_CHECKING:
    from trex_ds.adapters.trex import TRexConfig
    from trex_ds.intuition.centroids import Centroids
    from trex_ds.intuition.scorer import Intuition

__all__ = ["Centroids", "Intuition", "TRexConfig", "__version__"]

_HOMES = {
    "TRexConfig": "trex_ds.adapters",
    "Centroids": "trex_ds.intuition.centroids",
    "Intuition": "trex_ds.intuition.scorer",
}


def __getattr__(name: str) -> Any:
    # On demand, because torch and PEFT take seconds to import, and a wrong recipe is told without them.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
