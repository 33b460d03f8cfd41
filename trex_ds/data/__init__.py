"""Data: from examples to batches."""

from trex_ds.data.collator import Collator, PackedCollator, TrainingSet
from trex_ds.data.encoding import IGNORED_LABEL, DataConfig, Encoded, encode_example, encode_prompt, encode_training
from trex_ds.data.mixing import epoch_counts, epoch_indices
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
    "encode_prompt",
    "encode_training",
    "epoch_counts",
    "epoch_indices",
    "plan_rows",
]
