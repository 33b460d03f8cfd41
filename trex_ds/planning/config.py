"""A recipe and the machine that it is planned for."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from trex_ds.config import section
from trex_ds.training.recipe import Recipe


@section
class Assumptions:
    """What a plan cannot know; replace it by what was measured on the machine."""

    tflops: PositiveFloat = 300.0
    """10^12 operations a second that one GPU sustains in matrix products (an A100 has 312 at most, an H100 989)."""
    node_bandwidth: PositiveFloat = 150.0
    """GB/s that a GPU sends to the others of its node."""
    network_bandwidth: PositiveFloat = 12.5
    """GB/s that a GPU sends to other nodes (100 Gbit/s)."""
    host_bandwidth: PositiveFloat = 20.0
    """GB/s between a GPU and the memory of its node."""
    disk_bandwidth: PositiveFloat = 5.0
    """GB/s that a node reads from its disk, where weights are offloaded to it."""
    call_microseconds: NonNegativeFloat = 50.0
    """What a collective takes beside its bytes."""
    cuda_memory: NonNegativeFloat = 1.5
    """GiB of a GPU that CUDA's context, cuBLAS and NCCL take; no tensors."""
    free_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of a GPU's memory to leave free: the allocator's gaps, and what kernels take for themselves."""
    answer_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of a row's tokens that are predicted; logits are made for these alone."""


@section
class PlannedRecipe(Recipe):
    """A training job and the machine that is to run it."""

    gpus: PositiveInt = 1
    """GPUs of each node."""
    gpu_memory: PositiveFloat = 80.0
    """GiB of each GPU."""
    nodes: PositiveInt = 1
    """How many nodes."""
    cpu_memory: PositiveFloat | None = None
    """GiB of each node, for what is offloaded; null: not checked."""
    largest_micro_batch: PositiveInt = 64
    """Micro batches of more rows are not tried."""
    assumptions: Assumptions = Field(default_factory=Assumptions)
    """What a plan cannot know."""
    output: str | None = None
    """File for the plan as JSON."""

    checked_here: ClassVar[tuple[str, ...]] = ("model",)

    def problems(self) -> list[str]:
        """The recipe's own problems, and a method of which no plan is made."""
        found = super().problems()
        if reason := self.adapter.not_planned:
            found.append(
                f"adapter.method: no plan can be made of {self.adapter.method}: {reason}; plan lora with about as many "
                "parameters in its place"
            )
        return found

    def problems_here(self) -> list[str]:
        """Check only the model's configuration, which is read here; all else is on the machine that is planned for."""
        return []

    @property
    def world(self) -> int:
        """Ranks, one a GPU."""
        return self.gpus * self.nodes
