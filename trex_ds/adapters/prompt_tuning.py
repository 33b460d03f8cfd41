"""Prompt tuning on padded rows: the trained embeddings belong next to the text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from trex_ds.adapters.hooks import Hooks, active_config, hooks


@hooks("PROMPT_TUNING")
class PromptTuningHooks(Hooks):
    """Hooks of prompt tuning."""

    def made(self, model: PeftModel) -> None:
        """Cast the embeddings, which PEFT makes in float32, to the base's type."""
        model.prompt_encoder.to(model.get_base_model().dtype)

    def ready(self, model: PeftModel) -> None:
        """Have the base see a row's padding on the left before the embeddings, and count positions after it.

        PEFT puts the virtual tokens in front of the padding, and drops position_ids. The text would stand the
        further from them the more padding its row has, so that answers would depend on the other rows of a batch.
        All tokens of the text keep their places, which their logits and labels have too.
        """
        model.base_model.register_forward_pre_hook(_padding_first, with_kwargs=True)

    def placed(self, model: PeftModel, inputs: dict[str, Any], predicts: Tensor) -> tuple[dict[str, Any], Tensor]:
        """See `Hooks.placed`: the virtual tokens come first, and predict nothing; the model counts positions itself."""
        virtual = active_config(model).num_virtual_tokens
        without = {name: value for name, value in inputs.items() if name != "position_ids"}
        return without, torch.nn.functional.pad(predicts, (virtual, 0))


@contextmanager
def embeddings_as_they_are(model: Any) -> Iterator[None]:
    """Have PEFT read a PEFT model's trained embeddings for its files without running their module.

    Under ZeRO-3 that would gather them, and wait for the processes that write nothing.
    """
    config = model.peft_config[model.active_adapter]
    before, config.inference_mode = config.inference_mode, True
    try:
        yield
    finally:
        config.inference_mode = before


def _padding_first(base: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    # While tokens are generated the mask is that of the whole row, in PEFT's order each time.
    mask = kwargs.get("attention_mask")
    if mask is None or mask.dim() != 2:
        return args, kwargs
    mask = mask.long()
    followed = mask.flip(1).cumsum(1).flip(1) > 0  # padding on the right stays where it is
    order = ((mask == 1) | ~followed).long().argsort(dim=1, stable=True)
    mask = mask.gather(1, order)
    kwargs["attention_mask"] = mask
    given = kwargs.get("inputs_embeds") if kwargs.get("inputs_embeds") is not None else kwargs.get("input_ids")
    assert given is not None
    if given.shape[1] == mask.shape[1] and kwargs.get("inputs_embeds") is not None:
        kwargs["inputs_embeds"] = given.gather(1, order.unsqueeze(-1).expand_as(given))
    kwargs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -given.shape[1] :]
    return args, kwargs
