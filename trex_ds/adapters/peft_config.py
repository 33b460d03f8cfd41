"""The PEFT configuration of a recipe's adapter section."""

from __future__ import annotations

from peft import PeftConfig, TaskType, get_peft_config

from trex_ds.methods.base import Method


def peft_config(adapter: Method) -> PeftConfig:
    """The PEFT configuration that `adapter` describes; for T-REX without centroids, which a job attaches.

    Raises:
        ValueError: if its values make no adapter, which `adapter.problems()` says too.
    """
    return get_peft_config({"peft_type": adapter.peft_type, "task_type": TaskType.CAUSAL_LM, **adapter.peft_fields()})
