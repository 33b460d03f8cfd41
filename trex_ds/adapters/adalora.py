"""AdaLoRA's two additions to training (arXiv 2303.10512): LoRA ranks are pruned, and A and B kept near orthogonal."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers.trainer_callback import TrainerCallback

from trex_ds.adapters.hooks import Hooks, active_config, hooks
from trex_ds.methods.adalora import no_steps_left


@hooks("ADALORA")
class AdaLoraHooks(Hooks):
    """Hooks of AdaLoRA."""

    def auxiliary_loss(self, model: PeftModel) -> Tensor:
        """See `Hooks.auxiliary_loss`: the mean distance of A A^T and B^T B from the identity, weighted.

        PEFT adds it too, but only where the model computes the loss itself.
        """
        distances = []
        for name, parameter in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                product = parameter @ parameter.T if ".lora_A." in name else parameter.T @ parameter
                identity = torch.eye(len(product), device=product.device, dtype=product.dtype)
                distances.append(torch.norm(product - identity))
        return active_config(model).orth_reg_weight * torch.stack(distances).mean()

    def callbacks(self, trainer: Any) -> list[Any]:
        """See `Hooks.callbacks`."""
        return [Pruning(trainer)]


class Pruning(TrainerCallback):
    """Callback that has PEFT prune LoRA ranks after each optimizer step, while the step's gradients are still there.

    DeepSpeed's engine drops them within its own step, before any of the Trainer's callbacks, so that the
    optimizer itself has to call. Without ZeRO and in float32 it is torch's and holds the parameters themselves.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._model = trainer.model
        self._step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell PEFT the number of steps, and follow the optimizer.

        Raises:
            ValueError: if the recipe leaves no steps to prune in.
        """
        config = active_config(self._model)
        if problem := no_steps_left(config.tinit, config.tfinal, state.max_steps):
            raise ValueError(f"adapter.{problem}")
        config.total_step = state.max_steps
        optimizer = self._trainer.model_wrapped.optimizer
        assert isinstance(optimizer, torch.optim.Optimizer), optimizer
        optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:
        self._step += 1
        self._model.base_model.update_and_allocate(self._step)
