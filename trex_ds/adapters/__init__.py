"""T-REX as a PEFT method; importing this package registers it with PEFT."""

from trex_ds.adapters.config import TRexConfig
from trex_ds.adapters.layer import TRexLinear
from trex_ds.adapters.model import TRexModel

__all__ = ["TRexConfig", "TRexLinear", "TRexModel"]
