"""Hooks of every routed method."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig, PeftModel
from torch import Tensor

from trex_ds.adapters.hooks import Hooks


class RoutedHooks(Hooks):
    """Calls of `RoutedModel` and `RoutedConfig` at the moments that hooks have names for."""

    def without_values(self, config: PeftConfig) -> None:
        """See `Hooks.without_values`."""
        config.attach_placeholders()

    def packed(self, model: PeftModel, inputs: dict[str, Any]) -> dict[str, Any]:
        """See `Hooks.packed`; the model isolates segments itself, because its routers read `segment_ids` too."""
        return inputs

    def auxiliary_loss(self, model: PeftModel) -> Tensor | None:
        """See `Hooks.auxiliary_loss`."""
        return model.base_model.auxiliary_loss()

    def after_backward(self, model: PeftModel) -> None:
        """See `Hooks.after_backward`."""
        model.base_model.update_balance()
