"""T-REX adapters: mixtures of rank-one experts routed by token and by semantic cluster (arXiv 2404.08985)."""

from trex_ds.adapters import TRexConfig
from trex_ds.intuition import Centroids, Intuition
from trex_ds.version import __version__

__all__ = ["Centroids", "Intuition", "TRexConfig", "__version__"]
