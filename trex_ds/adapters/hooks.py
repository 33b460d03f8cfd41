"""What methods do beside their layers, called by whoever makes, counts, trains and loads adapted models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from peft import PeftConfig, PeftModel
from peft.utils import PeftType
from torch import Tensor

from trex_ds.adapters.passes import isolated


class Hooks:
    """What a method does at each of these moments; most do what is here, which is nothing."""

    def set_tasks(self, config: PeftConfig, count: int | None) -> None:
        """Tell the configuration, before its adapter is made, how many tasks are learned apart.

        Raises:
            ValueError: if the method needs their number and `count` is None.
        """

    def without_values(self, config: PeftConfig) -> None:
        """Replace in the configuration what would be computed from values, before an adapter without values is made."""

    def made(self, model: PeftModel) -> None:
        """Finish, or refuse, a fresh adapter that PEFT has made.

        Raises:
            ValueError: if the adapter does not fit the model.
        """

    def ready(self, model: PeftModel) -> None:
        """Finish an adapter that was made or loaded."""

    def packed(self, model: PeftModel, inputs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a forward pass whose rows hold several segments, so that no segment sees another.

        Args:
            model: the adapted model.
            inputs: as a collator makes them, with `segment_ids` (batch, seq).
        """
        without = {name: value for name, value in inputs.items() if name != "segment_ids"}
        return isolated(without, model.get_base_model())

    def placed(self, model: PeftModel, inputs: dict[str, Any], predicts: Tensor) -> tuple[dict[str, Any], Tensor]:
        """The arguments of a training pass, and which of the model's positions predict, (batch, positions) bool.

        Args:
            model: the adapted model.
            inputs: arguments of its forward.
            predicts: which of the rows' tokens predict one of an answer, (batch, seq) bool.
        """
        return inputs, predicts

    def auxiliary_loss(self, model: PeftModel) -> Tensor | None:
        """What the method adds to the loss of the latest training pass, already weighted; None: nothing."""
        return None

    def after_backward(self, model: PeftModel) -> None:
        """Update what no gradient does, after the backward of a training pass; a collective of several processes."""

    def callbacks(self, trainer: Any) -> list[Any]:
        """Callbacks of transformers' Trainer that the method needs."""
        return []


_HOOKS: dict[PeftType, Hooks] = {}
_NONE = Hooks()
H = TypeVar("H", bound=Hooks)


def hooks(*peft_types: str) -> Callable[[type[H]], type[H]]:
    """A decorator that makes a class the hooks of methods, named by PEFT's types of their configurations.

    Raises:
        KeyError: for a type that PEFT does not know.
    """

    def register(cls: type[H]) -> type[H]:
        for peft_type in peft_types:
            _HOOKS[PeftType[peft_type]] = cls()
        return cls

    return register


def hooks_of(config: PeftConfig) -> Hooks:
    """The hooks of the configuration's method."""
    return _HOOKS.get(config.peft_type, _NONE)


def hooks_of_model(model: PeftModel) -> Hooks:
    """The hooks of the active adapter's method."""
    return hooks_of(active_config(model))


def active_config(model: PeftModel) -> PeftConfig:
    """The configuration of the model's active adapter."""
    return model.peft_config[model.active_adapter]
