"""Methods and the rest of a recipe: what cannot work together, found before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trex_ds.adapters.limits import BFLOAT16, CHECKPOINTING, FOUR_BITS, HELD_OUT, PACKING, RESUMING, ZERO, ZERO3

if TYPE_CHECKING:
    from trex_ds.training.recipe import Recipe


def combination_problems(recipe: Recipe, deepspeed: dict[str, Any]) -> list[str]:
    """What the recipe's method cannot be used with, each with the reason and the way out.

    Args:
        recipe: all sections.
        deepspeed: the contents of the file that `training.deepspeed` names; empty if it cannot be read.
    """
    method, training = recipe.adapter.method, recipe.training
    stage = (deepspeed.get("zero_optimization") or {}).get("stage", 0)
    used = {
        FOUR_BITS: ("model.quantization", recipe.model.quantization is not None, "set it to null"),
        ZERO3: ("training.deepspeed", stage == 3, "use a file with zero_optimization.stage 2 or less"),
        ZERO: ("training.deepspeed", stage != 0, "use a file with zero_optimization.stage 0"),
        BFLOAT16: ("model.dtype", recipe.model.dtype == "bfloat16", "use float32"),
        PACKING: ("data.packing", recipe.data.packing, "set it to false"),
        CHECKPOINTING: ("training.gradient_checkpointing", training.gradient_checkpointing, "set it to false"),
        HELD_OUT: ("evaluation.every", recipe.evaluation.every is not None, "set it to null"),
        RESUMING: ("training.save_every", training.save_every is not None or training.resume, "set it to null"),
    }
    found = []
    for limit, reason in recipe.adapter.refuses.items():
        where, is_used, way_out = used[limit]
        if is_used:
            found.append(f"{where}: adapter.method {method} does not work with it: {reason}; {way_out}, or use lora")
    if recipe.adapter.needs_tasks:
        found += [
            f"tasks.{number}.source: {task.source} is asked by lm-evaluation-harness, which does not tell of which "
            f"task a question is, as adapter.method {method} needs it; use another method"
            for number, task in enumerate(recipe.tasks)
            if task.source.startswith("lm_eval:")
        ]
    steps = training.max_steps
    if method == "adalora" and steps is not None and recipe.adapter.tinit + recipe.adapter.tfinal >= steps:
        found.append(
            f"adapter.tinit: {recipe.adapter.tinit} and tfinal {recipe.adapter.tfinal} leave none of the "
            f"{steps} steps of training.max_steps to take ranks away in; make them smaller"
        )
    return found
