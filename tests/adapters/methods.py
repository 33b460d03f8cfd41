"""Every method of a recipe in small, and how a tiny model is adapted by it."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftConfig, PeftModel

from tests.intuition.planted import planted_centroids
from trex_ds.adapters.loading import adapt
from trex_ds.adapters.peft_config import peft_config
from trex_ds.methods import config
from trex_ds.methods.base import Method

NUM_CLUSTERS = 6
TASKS = ["spell", "sum"]
SMALL: dict[str, dict[str, Any]] = {
    "trex": {"num_in_experts": 2, "num_out_experts": 3, "num_clusters": NUM_CLUSTERS},
    "mor1e": {"num_experts": 6, "num_clusters": NUM_CLUSTERS},
    "adalora": {"init_r": 4, "target_r": 2},
    "randlora": {"r": 8, "randlora_alpha": 16},
    "vera": {"r": 8},
    "shira": {"r": 2},
    "ia3": {},
    "beft": {},
    "ln_tuning": {},
    "prompt_tuning": {"num_virtual_tokens": 3},
    "poly": {"r": 2, "n_skills": 2},
    "mhr": {"r": 2, "n_skills": 2, "n_splits": 2},
}
METHODS = sorted(config.METHODS)
GENERATOR_SEED = 1


def section(method: str) -> Method:
    """The method's section of a recipe, with sizes that a tiny model has room for."""
    return config.METHODS[method](**SMALL.get(method, {}))


def configuration(method: str) -> PeftConfig:
    chosen = section(method)
    made = peft_config(chosen)
    if chosen.needs_intuition:
        made.attach_centroids(planted_centroids(NUM_CLUSTERS))
    return made


def adapted(method: str, base: Any, drawn: bool = True) -> PeftModel:
    """The model with an adapter as a job makes it, in evaluation mode; `drawn`: not as it starts."""
    torch.manual_seed(0)
    model = adapt(base, configuration(method), len(TASKS))
    if drawn:
        draw(model)
    return model.eval()


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def draw(model: Any) -> None:
    """Move every trained parameter, sharded or not, by the same noise."""
    import deepspeed

    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    for parameter in trained(model).values():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=hasattr(parameter, "ds_id")):
            # Gates are sharp: larger ones would let no gradient through.
            scale = 0.05 if parameter.numel() > 1 else 0.005
            noise = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data += noise.to(parameter.dtype)


def side_inputs(method: str, batch: int) -> dict[str, torch.Tensor]:
    """What the method's forward takes beside tokens, for each row."""
    chosen = section(method)
    found = {}
    if chosen.needs_intuition:
        generator = torch.Generator().manual_seed(0)
        found["intuition"] = torch.rand(batch, NUM_CLUSTERS, generator=generator)
    if chosen.needs_tasks:
        found["task_ids"] = torch.arange(batch) % len(TASKS)
    return found
