"""Data: from examples to batches."""

from trex_ds.data.collator import Collator, PackedCollator, TrainingSet
from trex_ds.data.config import DataConfig
from trex_ds.data.encoding import IGNORED_LABEL, Encoded, encode_example, encode_examples, encode_prompt, turn_ends
from trex_ds.data.packing import PackedSet, PackingPlan, plan_rows

__all__ = [
    "IGNORED_LABEL",
    "Collator",
    "DataConfig",
    "Encoded",
    "PackedCollator",
    "PackedSet",
    "PackingPlan",
    "TrainingSet",
    "encode_example",
    "encode_examples",
    "encode_prompt",
    "plan_rows",
    "turn_ends",
]
