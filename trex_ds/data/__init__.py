"""Data: from examples to batches."""
