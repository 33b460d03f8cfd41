"""Tasks: where examples come from and how answers are scored."""

from trex_ds.tasks.base import Example, Scorer, Split, exact_match, normalised, right_choice
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.showing import show
from trex_ds.tasks.sources import fingerprint, keep_benchmark_data, load_benchmarks, read_examples, scorer

__all__ = [
    "Example",
    "Scorer",
    "Split",
    "TaskConfig",
    "exact_match",
    "fingerprint",
    "keep_benchmark_data",
    "load_benchmarks",
    "normalised",
    "read_examples",
    "right_choice",
    "scorer",
    "show",
]
