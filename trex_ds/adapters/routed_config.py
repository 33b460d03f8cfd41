"""The base of every routed method's PEFT configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from peft import PeftConfig, TaskType
from peft.utils import PeftType
from torch import Tensor

from trex_ds.adapters.router import Router
from trex_ds.methods.routed import RoutedFields


@dataclass
class RoutedConfig(RoutedFields, PeftConfig):
    """Configuration of a routed adapter; a subclass has its method's fields, and makes its router.

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    # PEFT's default is None, whose generate would not know of intuition.
    task_type: str | TaskType | None = field(default=TaskType.CAUSAL_LM, metadata={"help": "PEFT's task type"})

    registered_as: ClassVar[PeftType]
    """PEFT's type of the method, set where the class is registered."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = self.registered_as
        if problems := self.problems():
            raise ValueError(f"{type(self).__name__}: " + "; ".join(problems))
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
        if isinstance(self.exclude_modules, list | tuple):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]

    @property
    def shared_by(self) -> str | None:
        """The setting by which linears that read the same input share their routers' reading weights; None: none."""
        return None

    def check_ready(self) -> None:
        """Refuse to make a router yet.

        Raises:
            ValueError: saying what must be attached to the configuration before.
        """

    def attach_placeholders(self) -> None:
        """Attach what is missing for `check_ready`, made of nothing: for models of which only sizes matter."""

    def transform(self, scores: Tensor) -> Tensor:
        """What the routers are given of raw intuition scores, (samples, num_clusters), once a forward pass."""
        return scores

    def make_router(self, in_features: int) -> Router:
        """A fresh router of a linear with `in_features` inputs."""
        raise NotImplementedError

    def draw_in(self, in_features: int) -> Tensor:
        """A's start, (rows of A, in_features); B starts at zero, so that the adapted model is the base model."""
        A = torch.empty(self.num_in, in_features)
        torch.nn.init.kaiming_uniform_(A, a=5**0.5)
        return A
