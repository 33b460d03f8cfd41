"""The base class of every method, and the table that methods enter themselves in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, dataclass_transform

from pydantic import Field

from trex_ds.config import section

TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "modules_to_save")
"""Fields that say which linears a method adapts, and what it trains in full."""

NAME_MODULES = "name the modules, as target_modules: [q_proj, v_proj]"
"""The way out where `Method.picks_unnamed`."""


class WithoutIntuition:
    """What holds of a method that takes no intuition scores; one that does says otherwise."""

    @property
    def needs_intuition(self) -> bool:
        """Whether the model's forward takes intuition scores, so that a job has to make them."""
        return False

    @property
    def num_clusters(self) -> int:
        """The number of intuition scores of a sample, where `needs_intuition`."""
        return 0


@dataclasses.dataclass
class Method(WithoutIntuition):
    """A method of adapting a model: a recipe's `adapter` section, and what is known of the method without torch.

    A subclass is one method, made with `@method`; its fields are what a recipe can set. What the method computes is
    in the module of the same name in `trex_ds/adapters/`, where there is any.
    """

    method: str
    """The method's name, its own in each subclass."""

    peft_type: ClassVar[str]
    """PEFT's name of the configuration that the section becomes, as in a saved adapter_config.json."""
    constants: ClassVar[Mapping[str, Any]] = {}
    """Fields of that configuration that make the method what it is."""
    refuses: ClassVar[Mapping[str, str]] = {}
    """What the method cannot be used with (a name of limits.py), and why."""
    lora_based: ClassVar[bool] = False
    """Whether the update is a product of two low-rank matrices, or a mixture of such."""
    not_planned: ClassVar[str | None] = None
    """Why no plan of memory and time can be made; None: it can."""
    leaves_experts: ClassVar[str | None] = None
    """Why the method cannot adapt the experts of a mixture-of-experts model; None: it does not say."""
    needs_tasks: ClassVar[bool] = False
    """Whether the model's forward takes `task_ids`, so that a job has to number its tasks."""

    def problems(self) -> list[str]:
        """What can be told to be wrong with the values before there is a model: one line each, `field: what`."""
        raise NotImplementedError

    def problems_with_steps(self, steps: int) -> list[str]:
        """What is wrong with the values in a training of so many optimizer steps, one line each."""
        return []

    def peft_fields(self) -> dict[str, Any]:
        """Fields of the PEFT configuration that this section describes."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["method"]
        return values | dict(self.constants)

    @property
    def picks_unnamed(self) -> bool:
        """Whether it adapts some layers' linears without naming these, which none of PEFT's own methods can do."""
        some_layers = getattr(self, "layers_to_transform", None) is not None
        return some_layers and isinstance(getattr(self, "target_modules", None), str)


METHODS: dict[str, type[Method]] = {}
"""Every method by its name, in the order of their modules' import: see config.py."""

_DESCRIPTION = "How the model is adapted; the other fields of the section depend on it."
M = TypeVar("M", bound=Method)


@dataclass_transform(field_specifiers=(dataclasses.field, Field))
def method(cls: type[M]) -> type[M]:
    """Make a class a recipe section, as `section` does, and enter it in METHODS by the default of its field `method`.

    Raises:
        ValueError: if another method has the name.
    """
    name: str = vars(cls)["method"]
    if name in METHODS:
        raise ValueError(f"{name!r} is {METHODS[name].__qualname__} already; give {cls.__qualname__} another name")
    cls.method = Field(default=name, description=_DESCRIPTION)
    METHODS[name] = section(cls)
    return cls
