"""T-REX and its family as PEFT methods; importing this package registers them with PEFT."""

from trex_ds.adapters.config import TRexConfig
from trex_ds.adapters.flylora import FlyLoraConfig
from trex_ds.adapters.hydralora import HydraLoraConfig
from trex_ds.adapters.layer import RoutedLinear
from trex_ds.adapters.model import RoutedModel
from trex_ds.adapters.molora import MoLoraConfig
from trex_ds.adapters.mora import MoraConfig
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.sira import SiraConfig
from trex_ds.adapters.smora import SmoraConfig

__all__ = [
    "FlyLoraConfig",
    "HydraLoraConfig",
    "MoLoraConfig",
    "MoraConfig",
    "RoutedConfig",
    "RoutedLinear",
    "RoutedModel",
    "SiraConfig",
    "SmoraConfig",
    "TRexConfig",
]
