"""A model with its adapter on the meta device: every shape and name, and memory for nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import PeftConfig, PeftModel

from trex_ds.adapters.hooks import hooks_of
from trex_ds.adapters.loading import adapt
from trex_ds.modeling.meta import base_on_meta


def adapt_on_meta(base: Any, adapter: PeftConfig, tasks: int | None = None) -> PeftModel:
    """`base`, on the meta device, with a fresh adapter there.

    Args:
        base: a causal language model; it is changed.
        adapter: any PEFT configuration; it is left as it is.
        tasks: how many are learned apart; only Poly and MHR read it, and need it.

    Raises:
        ValueError: if the adapter does not fit the model, or learns tasks apart and `tasks` is None.
    """
    adapter = copy.deepcopy(adapter)
    hooks_of(adapter).without_values(adapter)
    with torch.device("meta"):
        return adapt(base, adapter, tasks)


def adapted_on_meta(config: Any, adapter: PeftConfig, tasks: int | None = None) -> tuple[PeftModel, Any]:
    """The model that transformers' `config` describes with a fresh adapter, and the names and sizes of its base.

    Args:
        config: the base model's; no weights are needed.
        adapter: as for `adapt_on_meta`.
        tasks: as for `adapt_on_meta`.

    Returns:
        The adapted model, and a base model without adapter, both on the meta device.

    Raises:
        ValueError: as for `adapt_on_meta`.
    """
    return adapt_on_meta(base_on_meta(config), adapter, tasks), base_on_meta(config)
