"""T-REX and its family as PEFT methods; importing this package registers them with PEFT."""

from importlib import import_module
from importlib.util import find_spec

from trex_ds.adapters.layer import RoutedLinear
from trex_ds.adapters.model import RoutedModel
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.trex import TRexConfig
from trex_ds.methods.config import METHODS

# What a method computes is in the module of its section's name, if PEFT alone does not do it all.
for _module in {section.__module__.rpartition(".")[2] for section in METHODS.values()}:
    if find_spec(f"{__name__}.{_module}") is not None:
        import_module(f"{__name__}.{_module}")

__all__ = ["RoutedConfig", "RoutedLinear", "RoutedModel", "TRexConfig"]
