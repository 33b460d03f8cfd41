"""What the configurations of all methods of the family have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from peft import PeftConfig, TaskType
from peft.utils import PeftType
from torch import Tensor

from trex_ds.adapters.router import Router


@dataclass
class RoutedConfig(PeftConfig):
    """Configuration of a routed method: the linears to adapt. A subclass adds the sizes of A and B, and the router.

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    # PEFT's default is None, whose generate would not know of intuition.
    task_type: str | TaskType | None = field(default=TaskType.CAUSAL_LM, metadata={"help": "PEFT's task type"})
    target_modules: list[str] | str | None = field(
        default="all-linear", metadata={"help": "names or regex of the linears to adapt"}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "names or regex of linears to leave alone"}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None,
        metadata={"help": "indices of the layers to adapt (the first number in a module's name); null: all"},
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "other modules to train in full and to save with the adapter"}
    )
    dropout: float = field(default=0.0, metadata={"help": "dropout on A's input; the router sees x as it is"})

    method: ClassVar[str]
    """The method's name in recipes; PEFT's type is the same in capitals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[self.method.upper()]
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
        if isinstance(self.exclude_modules, list | tuple):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        found = [] if 0.0 <= self.dropout < 1.0 else [f"dropout must lie in [0, 1), got {self.dropout!r}"]
        if found := self.problems() + found:
            raise ValueError(f"{type(self).__name__}: " + "; ".join(found))

    def problems(self) -> list[str]:
        """What is wrong with the method's own fields, one line each, headed by the field's name."""
        raise NotImplementedError

    def not_positive(self, *names: str) -> list[str]:
        """A line for each of these fields that is not a whole number of at least 1."""
        return [
            f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}"
            for name in names
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1
        ]

    @property
    def needs_intuition(self) -> bool:
        """Whether a forward pass takes the samples' intuition scores."""
        return False

    @property
    def num_in(self) -> int:
        """Input-side vectors."""
        raise NotImplementedError

    @property
    def num_out(self) -> int:
        """Output-side vectors."""
        return self.num_in

    def make_router(self, in_features: int) -> Router:
        """A fresh router of a linear with `in_features` inputs."""
        raise NotImplementedError

    def draw_in(self, in_features: int) -> Tensor:
        """A's start, (rows of A, in_features); B starts at zero, so that the adapted model is the base model."""
        A = torch.empty(self.num_in, in_features)
        torch.nn.init.kaiming_uniform_(A, a=5**0.5)
        return A
