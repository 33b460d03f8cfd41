"""A base model with a fresh adapter, or with one from a folder; whatever the method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import (
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from torch import Tensor

from trex_ds.adapter_folder import WEIGHTS_FILE
from trex_ds.adapters.hooks import hooks_of, hooks_of_model
from trex_ds.adapters.prompt_tuning import embeddings_as_they_are
from trex_ds.bf16_matmul import use_float32_products


def adapt(base: Any, config: PeftConfig, tasks: int | None = None) -> PeftModel:
    """A fresh adapter on `base`, of the base's type: DeepSpeed keeps a float32 master copy.

    Args:
        base: a causal language model.
        config: of the method; with centroids attached where it needs them.
        tasks: how many the mixture has, for a method that learns them apart.

    Raises:
        ValueError: if the adapter does not fit the model.
    """
    hooks = hooks_of(config)
    hooks.set_tasks(config, tasks)
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    hooks.made(model)
    return _ready(model)


def load_adapted(base: Any, folder: str | Path) -> PeftModel:
    """`base` with the adapter that was saved in `folder`, for inference.

    Raises:
        ValueError: if the file lacks a tensor that the adapter has.
    """
    method = type(PeftConfig.from_pretrained(str(folder)))
    config = method.from_pretrained(str(folder))  # T-REX's reads its centroids too
    config.inference_mode = True
    made_by = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
    model = made_by(base, config, autocast_adapter_dtype=False)
    tensors = load_peft_weights(str(folder), "cpu")
    set_weights(model, tensors, Path(folder) / WEIGHTS_FILE)
    return _ready(model.eval())


def set_weights(model: PeftModel, tensors: dict[str, Tensor], file: Path) -> None:
    """Put the tensors of an adapter's file into a model with the same adapter, whose own are whole in this process.

    Those that the file lacks PEFT would leave as they were drawn, at most with a warning.

    Args:
        model: with a fresh adapter, or an earlier state of it.
        tensors: the contents of the file.
        file: named in errors.

    Raises:
        ValueError: if the file lacks a tensor that the adapter has.
    """
    with embeddings_as_they_are(model):
        needed = get_peft_model_state_dict(model, save_embedding_layers=False)
    if missing := sorted(needed.keys() - tensors.keys()):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{file} lacks {len(missing)} of the {len(needed)} tensors of its adapter: {', '.join(missing[:3])}{more}; "
            "copy it again from where it was saved, or load it into the base model that it was trained on"
        )
    set_peft_model_state_dict(model, tensors)


def _ready(model: PeftModel) -> PeftModel:
    use_float32_products(model)  # the base model has them already, the adapter's own linears not
    hooks_of_model(model).ready(model)
    return model
