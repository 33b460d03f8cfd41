"""A model with its adapter on the meta device: every shape and name, and memory for nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PolyConfig, ShiraConfig, get_peft_model

from trex_ds.adapters.config import TRexConfig
from trex_ds.adapters.loading import check_splits
from trex_ds.intuition.centroids import placeholder_centroids
from trex_ds.modeling.meta import base_on_meta


def adapted_on_meta(config: Any, adapter: PeftConfig, tasks: int | None = None) -> tuple[PeftModel, Any]:
    """The model that transformers' `config` describes with a fresh adapter, and the names and sizes of its base.

    Args:
        config: of the base model; no weights are needed.
        adapter: any PEFT configuration; it is left as it is.
        tasks: how many are learned apart; only Poly and MHR read it, and need it.

    Returns:
        The adapted model, and a base model without adapter, both on the meta device.

    Raises:
        ValueError: if the adapter does not fit the model, or learns tasks apart and `tasks` is None.
    """
    adapter = copy.deepcopy(adapter)
    if isinstance(adapter, TRexConfig) and adapter.needs_statistics and adapter.centroids is None:
        adapter.attach_centroids(placeholder_centroids(adapter.num_clusters))
    if isinstance(adapter, PolyConfig):
        if tasks is None:
            raise ValueError("Poly and MHR have parameters for each task, so that count needs their number: pass tasks")
        adapter.n_tasks = tasks
    if isinstance(adapter, ShiraConfig):
        adapter.mask_fn = None  # which weights are trained is a matter of values; how many are is not
    base = base_on_meta(config)
    with torch.device("meta"):
        model = get_peft_model(base, adapter)
    check_splits(model)
    return model, base_on_meta(config)
