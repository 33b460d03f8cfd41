"""The PEFT configuration of a recipe's adapter section."""

from __future__ import annotations

from peft import PeftConfig, TaskType, get_peft_config
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from trex_ds.methods.base import Method


def peft_config(adapter: Method) -> PeftConfig:
    """The PEFT configuration that `adapter` describes; for T-REX without centroids, which a job attaches.

    Raises:
        ValueError: if its values make no adapter, which `adapter.problems()` says too.
        LookupError: if no configuration is registered as the method's `peft_type`.
    """
    if adapter.peft_type not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise LookupError(
            f"PEFT has no configuration {adapter.peft_type!r}, the peft_type of method {adapter.method!r}; "
            f"@routed_method({adapter.peft_type!r}) registers one, in the method's module of trex_ds/adapters"
        )
    return get_peft_config({"peft_type": adapter.peft_type, "task_type": TaskType.CAUSAL_LM, **adapter.peft_fields()})
