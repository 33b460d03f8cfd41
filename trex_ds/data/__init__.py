"""Data: from examples to batches."""

from trex_ds.data.collator import Collator, TrainingSet
from trex_ds.data.encoding import IGNORED_LABEL, DataConfig, Encoded, encode_example, encode_examples, encode_prompt
from trex_ds.data.mixing import epoch_counts, epoch_indices

__all__ = [
    "IGNORED_LABEL",
    "Collator",
    "DataConfig",
    "Encoded",
    "TrainingSet",
    "encode_example",
    "encode_examples",
    "encode_prompt",
    "epoch_counts",
    "epoch_indices",
]
