"""A base model with a fresh adapter, or with one from a folder; whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, PolyConfig, PromptTuningConfig, get_peft_model

from trex_ds.adapters.prompt_tuning import place_after_padding


def adapt(base: Any, config: PeftConfig, tasks: Sequence[str] = ()) -> PeftModel:
    """A fresh adapter on `base`, of the base's type: DeepSpeed keeps a float32 master copy.

    Args:
        base: a causal language model.
        config: of the method; with centroids attached where it needs them.
        tasks: of the mixture; a method that learns them apart has as many.
    """
    if isinstance(config, PolyConfig):
        config.n_tasks = len(tasks)
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    if isinstance(config, PromptTuningConfig):  # PEFT makes these in float32, and does not cast them
        model.prompt_encoder.to(base.dtype)
    return _ready(model)


def load_adapted(base: Any, folder: str | Path) -> PeftModel:
    """`base` with the adapter that was saved in `folder`."""
    return _ready(PeftModel.from_pretrained(base, str(folder), autocast_adapter_dtype=False))


def _ready(model: PeftModel) -> PeftModel:
    if isinstance(model.peft_config[model.active_adapter], PromptTuningConfig):
        place_after_padding(model.base_model)
    return model
