"""Writing the adapter of a training job, and putting a written one back into the model."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trex_ds.adapter_folder import IDENTITY_FILE, TASKS_FILE, WEIGHTS_FILE, AdapterFolder
from trex_ds.adapters.loading import set_weights
from trex_ds.config import to_dict
from trex_ds.distributed import on_rank_zero, rank
from trex_ds.files import atomic_path
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.held import BASE, role_of
from trex_ds.modeling.identity import BaseIdentity, base_identity
from trex_ds.protocols import CausalLM
from trex_ds.tasks.forms import forms_of

if TYPE_CHECKING:
    from trex_ds.training.recipe import Recipe


def save_adapter(trainer: Any, recipe: Recipe, folder: Path) -> None:
    """Write adapter, centroids, tokenizer, recipe and prompt forms to `folder`; all ranks call it, rank 0 writes."""
    with atomic_path(folder) if rank() == 0 else nullcontext(folder) as temporary:
        with warnings.catch_warnings():
            # PEFT looks for the base model's config to learn whether its vocabulary grew, which it never does here.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            trainer.save_model(str(temporary))
        if rank() == 0:
            _refuse_empty_tensors(temporary / WEIGHTS_FILE)
            (temporary / "training_args.bin").unlink(missing_ok=True)  # a pickle, and the recipe says it all
            written = AdapterFolder(temporary)
            written.write_recipe(to_dict(recipe))
            written.write_forms(forms_of(to_dict(recipe)["tasks"], trainer.processing_class.chat_template is not None))
            run = AdapterFolder(Path(recipe.output_dir))
            if recipe.adapter.needs_tasks:
                shutil.copy(run.file(TASKS_FILE), temporary)
            if run.file(IDENTITY_FILE).is_file():
                shutil.copy(run.file(IDENTITY_FILE), temporary)


def load_adapter(model: CausalLM, folder: Path) -> None:
    """Put the weights that `save_adapter` wrote into the PEFT model, sharded or not; all ranks call it.

    For what is evaluated and saved, not for what is trained on: the optimizer keeps its own copies.

    Raises:
        ValueError: if the file lacks a tensor that the adapter has.
    """
    file = folder / WEIGHTS_FILE
    # Read by rank 0 alone: other nodes need not see the folder.
    if not is_sharded(model):
        set_weights(model, on_rank_zero(lambda: load_file(file)), file)
        return
    with whole_adapter(model, modifier_rank=0):
        on_rank_zero(lambda: set_weights(model, load_file(file), file))
    # Parameters have been sent out now, but buffers, such as a bias that balances loads, have not.
    for name, buffer in model.named_buffers():
        if role_of(name) != BASE:
            torch.distributed.broadcast(buffer, 0)


def is_sharded(model: CausalLM) -> bool:
    """Whether ZeRO-3 has sharded the model's parameters."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def whole_adapter(model: CausalLM, modifier_rank: int | None = None) -> AbstractContextManager:
    """Give every rank all parameters of the adapter of a sharded model for the block; a collective.

    Not only what is trained: FlyLoRA's A is frozen, and is in the file all the same.

    Args:
        model: sharded by ZeRO-3.
        modifier_rank: the rank whose changes are sent to the others; None: nothing is changed.
    """
    import deepspeed

    own = [parameter for name, parameter in model.named_parameters() if role_of(name) != BASE]
    return deepspeed.zero.GatheredParameters(own, modifier_rank=modifier_rank)


def write_tasks(tasks: Sequence[str], folder: Path) -> None:
    """Record the names of the tasks in the order of their numbers, as `folder`/tasks.json.

    Raises:
        ValueError: if the job being resumed numbered the tasks differently.
    """
    run = AdapterFolder(folder)
    before = run.tasks
    if before is not None and before != list(tasks) and any(folder.glob("checkpoint-*")):
        raise ValueError(
            f"tasks: {run.file(TASKS_FILE)} numbers {before}, which the adapter was trained with so far, but the "
            f"recipe has {list(tasks)}; use the same tasks, or start again in another output_dir"
        )
    run.write_tasks(tasks)


def write_identity(model: ModelConfig, folder: Path, *, resumed: bool) -> None:
    """Record what the base model is, as `folder`/base_model.json.

    Args:
        model: the base model.
        folder: of the run.
        resumed: whether the job resumes from a checkpoint in it.

    Raises:
        ValueError: if the job being resumed had another base model.
    """
    found = base_identity(model)
    before = BaseIdentity.load(folder) if resumed else None
    if found is None:
        (folder / IDENTITY_FILE).unlink(missing_ok=True)
        return
    if before is not None and (difference := found.difference(before)):
        raise ValueError(
            f"model.name: the checkpoint in {folder} was trained on {before}, and {found} is another model: "
            f"{difference}; name the former, or start again in another output_dir"
        )
    found.save(folder)


def _refuse_empty_tensors(file: Path) -> None:
    with safe_open(file, framework="pt") as tensors:
        empty = [key for key in tensors.keys() if 0 in tensors.get_slice(key).get_shape()]  # noqa: SIM118
    assert not empty, f"sharded tensors were saved without being gathered: {empty[:3]}"
