"""What is predicted for a rank, under the names of what `measured_bytes.measure` counts."""

from __future__ import annotations

from trex_ds.planning.gathers import replay
from trex_ds.planning.memory import memory
from trex_ds.planning.meta_model import meta_model
from trex_ds.planning.settings import read_settings
from trex_ds.planning.step_profile import profile
from trex_ds.planning.traffic import traffic
from trex_ds.training.recipe import Recipe


def predict(recipe: Recipe, answers: int, world: int) -> dict[str, int]:
    """Bytes of one rank of `world`, for rows of `recipe.data.max_length` tokens of which `answers` are predicted."""
    model = meta_model(recipe)
    training = recipe.training
    settings = read_settings(training.deepspeed, model)
    step = profile(model, recipe.data.max_length, answers, training.gradient_checkpointing, recipe.model.attention)
    passes = training.gradient_accumulation_steps
    gathers = replay(model, step, settings.zero, world, passes) if settings.stage == 3 else None
    needed = memory(model, step, settings, world, training.micro_batch_size, gathers)
    sent = traffic(model, settings, world, gathers)
    parts = {part: 0 for part in ("base", "adapter", "optimizer", "gradients")}
    for place in (needed.kept, needed.cpu, needed.nvme):
        for part in parts:
            parts[part] += place.get(part, 0)
    return {
        **parts,
        "saved": needed.saved,
        "peak of a pass": needed.gathered + needed.activations,
        "peak of the optimizer": needed.step,
        "gather bytes": sent.gather_bytes,
        "gathers": sent.gather_calls,
        "reduce bytes": sent.reduce_bytes,
        "step bytes": sent.step_bytes,
        "step gathers": sent.step_calls,
    }
