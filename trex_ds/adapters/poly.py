"""Poly and MHR: their configuration counts the tasks, and MHR's parts must divide a linear's features."""

from __future__ import annotations

from peft import PeftConfig, PeftModel
from peft.tuners.poly import PolyLayer

from trex_ds.adapters.hooks import Hooks, active_config, hooks


@hooks("POLY")
class PolyHooks(Hooks):
    """Hooks of both."""

    def set_tasks(self, config: PeftConfig, count: int | None) -> None:
        """See `Hooks.set_tasks`."""
        if count is None:
            raise ValueError("Poly and MHR have parameters for each task, so that count needs their number: pass tasks")
        config.n_tasks = count

    def made(self, model: PeftModel) -> None:
        """Refuse parts that do not divide the features of a linear, which PEFT finds in the first forward pass.

        Raises:
            ValueError: naming the first linear that cannot be split.
        """
        splits = active_config(model).n_splits
        for name, layer in model.named_modules():
            if isinstance(layer, PolyLayer) and (layer.in_features % splits or layer.out_features % splits):
                raise ValueError(
                    f"n_splits: {splits} does not divide the {layer.in_features} inputs and {layer.out_features} "
                    f"outputs of {name}; take a number that divides them all, or leave it out with exclude_modules"
                )
