"""Step time of one method against another: two engines alive, their steps in turn, ratios of neighbours."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from trex_ds.data import IGNORED_LABEL
from trex_ds.distributed import gather_objects, on_rank_zero, rank, sum_over_ranks
from trex_ds.reporting.intervals import Interval, of_median
from trex_ds.training.job import training_arguments
from trex_ds.training.memory import held_by_this_rank, peak_bytes, reset_peak
from trex_ds.training.preparation import Prepared
from trex_ds.training.recipe import Recipe
from trex_ds.training.trainer import TRexTrainer

LEAST_PAIRS = 6
"""With fewer, 95% of the bootstrap's medians reach the smallest and the largest ratio, and say no more than those."""
_WARM_UP = 2
