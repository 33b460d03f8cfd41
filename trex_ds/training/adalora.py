"""AdaLoRA's two additions to training (arXiv 2303.10512): ranks are taken away, and A and B kept near orthogonal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback


class RankAllocation(TrainerCallback):
    """Lets AdaLoRA prune after each optimizer step, while the step's gradients are still there.

    DeepSpeed's engine drops them within its own step, before any of the Trainer's callbacks, so that the
    optimizer itself has to call. Without ZeRO and in float32 it is torch's and holds the parameters themselves.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._model = trainer.model
        self._step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how many steps there are, and follow the optimizer.

        Raises:
            ValueError: if the recipe leaves no steps to take ranks away in.
        """
        config = self._model.peft_config["default"]
        if config.tinit + config.tfinal >= state.max_steps:
            raise ValueError(
                f"adapter.tinit: {config.tinit} and tfinal {config.tfinal} leave none of the {state.max_steps} steps "
                "of the training to take ranks away in; make them smaller"
            )
        config.total_step = state.max_steps
        optimizer = self._trainer.model_wrapped.optimizer
        assert isinstance(optimizer, torch.optim.Optimizer), optimizer
        optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:
        self._step += 1
        self._model.base_model.update_and_allocate(self._step)


def orthogonality_loss(model: Any) -> Tensor:
    """What AdaLoRA adds to the loss: the mean distance of A A^T and B^T B from the identity, weighted.

    PEFT adds it too, but only where the model computes the loss itself.
    """
    config = model.peft_config["default"]
    distances = []
    for name, parameter in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            product = parameter @ parameter.T if ".lora_A." in name else parameter.T @ parameter
            distances.append(torch.norm(product - torch.eye(len(product), device=product.device, dtype=product.dtype)))
    return config.orth_reg_weight * torch.stack(distances).mean()
