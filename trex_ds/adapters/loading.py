"""A base model with a fresh adapter, or with one from a folder; whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import (
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING,
    PeftConfig,
    PeftModel,
    PolyConfig,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from peft.tuners.poly import PolyLayer
from torch import Tensor

from trex_ds.adapter_folder import WEIGHTS_FILE
from trex_ds.adapters.prompt_tuning import embeddings_as_they_are, place_after_padding
from trex_ds.bf16_matmul import use_float32_products


def adapt(base: Any, config: PeftConfig, tasks: Sequence[str] = ()) -> PeftModel:
    """A fresh adapter on `base`, of the base's type: DeepSpeed keeps a float32 master copy.

    Args:
        base: a causal language model.
        config: of the method; with centroids attached where it needs them.
        tasks: of the mixture; a method that learns them apart has as many.

    Raises:
        ValueError: if the adapter does not fit the model.
    """
    if isinstance(config, PolyConfig):
        config.n_tasks = len(tasks)
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    check_splits(model)
    if isinstance(config, PromptTuningConfig):  # PEFT makes these in float32, and does not cast them
        model.prompt_encoder.to(base.dtype)
    return _ready(model)


def check_splits(model: PeftModel) -> None:
    """Refuse parts of MHR that do not divide the features of a linear, which PEFT finds in the first forward pass.

    Raises:
        ValueError: naming the first linear that cannot be split.
    """
    config = model.peft_config[model.active_adapter]
    if not isinstance(config, PolyConfig):
        return
    for name, layer in model.named_modules():
        if isinstance(layer, PolyLayer) and (
            layer.in_features % config.n_splits or layer.out_features % config.n_splits
        ):
            raise ValueError(
                f"n_splits: {config.n_splits} does not divide the {layer.in_features} inputs and {layer.out_features} "
                f"outputs of {name}; take a number that divides them all, or leave it out with exclude_modules"
            )


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
    # Also of adapters of older versions of transformers, whose modules have other names.
    tensors = load_peft_weights(str(folder), "cpu", getattr(base, "_checkpoint_conversion_mapping", None))
    set_weights(model, tensors, Path(folder) / WEIGHTS_FILE)
    return _ready(model.eval())


def set_weights(model: PeftModel, tensors: dict[str, Tensor], file: Path) -> None:
    """Put the tensors of an adapter's file into a model with the same adapter, whose own are whole on this rank.

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
    if isinstance(model.peft_config[model.active_adapter], PromptTuningConfig):
        place_after_padding(model.base_model)
    return model
