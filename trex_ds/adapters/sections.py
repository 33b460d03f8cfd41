"""The `adapter` section of a recipe: one class a method, chosen by `adapter.method`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Union, get_type_hints

from peft import AdaLoraConfig, PeftConfig, PolyConfig
from pydantic import Discriminator, Field, Tag

from trex_ds.adapters.config import TRexConfig
from trex_ds.adapters.flylora import FlyLoraConfig
from trex_ds.adapters.hydralora import HydraLoraConfig
from trex_ds.adapters.molora import MoLoraConfig
from trex_ds.adapters.mora import MoraConfig
from trex_ds.adapters.peft_methods import HELP, PEFT_METHODS, PeftMethod
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.sira import SiraConfig
from trex_ds.adapters.smora import SmoraConfig
from trex_ds.config import section

# Set by the job, not by a recipe.
_NOT_IN_RECIPES = {field.name for field in dataclasses.fields(PeftConfig)} | {"centroids_fingerprint"}
# Fields of PEFT's configurations whose values PEFT itself checks only when the model has been loaded.
_SIZES = ("r", "init_r", "target_r", "num_virtual_tokens", "n_skills", "n_splits")


class AdapterSection:
    """What every adapter section can do; its fields are those of the method's PEFT configuration."""

    method: str
    config_cls: ClassVar[type[PeftConfig]]
    constants: ClassVar[dict[str, Any]] = {}
    """Fields of the configuration that make the method what it is."""
    refuses: ClassVar[Mapping[str, str]] = {}
    """What the method cannot be used with (a name of limits.py), and why."""

    def problems(self) -> list[str]:
        """What the configuration has to say against the section's values."""
        if not issubclass(self.config_cls, RoutedConfig) and (found := self._no_sizes()):
            return found
        try:
            config = self.build()
        except (ValueError, TypeError) as error:
            return [str(error).removeprefix(f"{self.config_cls.__name__}: ")]
        if isinstance(config, AdaLoraConfig) and not 0 < config.target_r < config.init_r:
            return [f"target_r must lie between 0 and init_r = {config.init_r}, got {config.target_r!r}"]
        return []

    def _no_sizes(self) -> list[str]:
        values = {name: getattr(self, name, 1) for name in _SIZES}
        return [f"{n}: must be a whole number of at least 1, got {value!r}" for n, value in values.items() if value < 1]

    def build(self) -> PeftConfig:
        """The PEFT configuration that this section describes."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        del fields["method"]
        return self.config_cls(**fields, **self.constants)

    @property
    def needs_intuition(self) -> bool:
        """Whether the model's forward takes intuition scores, so that a job has to make them."""
        config = self.build()
        return isinstance(config, RoutedConfig) and config.needs_intuition

    @property
    def needs_tasks(self) -> bool:
        """Whether the model's forward takes `task_ids`, so that a job has to number its tasks."""
        return self.config_cls is PolyConfig


class _MoR1E(AdapterSection):
    """T-REX's first version has one number of experts."""

    num_experts: int

    def build(self) -> PeftConfig:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        experts = fields.pop("num_experts")
        del fields["method"]
        return TRexConfig(**fields, num_in_experts=experts, num_out_experts=experts, pairs="diagonal")


def _make(
    method: str,
    config_cls: type[PeftConfig],
    names: Iterable[str],
    constants: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
    extra: list[Any] | None = None,
    refuses: Mapping[str, str] | None = None,
    base: type = AdapterSection,
) -> type:
    """A recipe section with fields of a PEFT configuration, whose types and descriptions are taken from it."""
    hints = get_type_hints(config_cls)
    own = {field.name: field for field in dataclasses.fields(config_cls)}
    described = Field(description="How the model is adapted; the other fields of the section depend on it.")
    specification: list[Any] = [("method", Annotated[Literal[method], described], method), *(extra or [])]
    for name in names:
        routed = issubclass(config_cls, RoutedConfig)
        description = Field(description=own[name].metadata["help"] if routed else HELP[name])
        default = (defaults or {}).get(name, own[name].default)
        specification.append((name, Annotated[hints[name], description], default))
    made: Any = dataclasses.make_dataclass(f"{config_cls.__name__}Section", specification, bases=(base,))
    made.__module__ = __name__
    made.__doc__ = f"The adapter, by {method}."
    made.config_cls = config_cls
    made.constants = constants or {}
    made.refuses = refuses or {}
    return section(made)


def _family(config_cls: type[RoutedConfig]) -> type:
    names = [field.name for field in dataclasses.fields(config_cls) if field.name not in _NOT_IN_RECIPES]
    return _make(config_cls.method, config_cls, names)


def _of_peft(method: PeftMethod) -> type:
    settings = (method.constants, method.defaults)
    return _make(method.name, method.config_cls, method.fields, *settings, refuses=method.refuses)


def _mor1e() -> type:
    chosen = {"num_in_experts", "num_out_experts", "pairs"}
    names = [f.name for f in dataclasses.fields(TRexConfig) if f.name not in _NOT_IN_RECIPES | chosen]
    experts = Annotated[int, Field(description="I = J, rank-one experts")]
    return _make("mor1e", TRexConfig, names, extra=[("num_experts", experts, 32)], base=_MoR1E)


SECTIONS: dict[str, type] = {
    "trex": _family(TRexConfig),
    "mor1e": _mor1e(),
    **{
        c.method: _family(c)
        for c in (MoLoraConfig, SiraConfig, SmoraConfig, HydraLoraConfig, FlyLoraConfig, MoraConfig)
    },
    **{m.name: _of_peft(m) for m in PEFT_METHODS},
}
"""The section class of each method."""


def _method_of(value: Any) -> Any:
    if isinstance(value, dict):
        return str(value.get("method", "trex"))  # as text, so that null or a list is refused by its name
    return getattr(value, "method", "trex")


AdapterConfig: Any = Annotated[
    Union[tuple(Annotated[cls, Tag(name)] for name, cls in SECTIONS.items())],  # noqa: UP007 (made at run time)
    Discriminator(_method_of),
]
"""The type of a recipe's `adapter` section; without `method` it is T-REX's."""


def default_adapter() -> AdapterSection:
    """T-REX in the paper's setting."""
    return SECTIONS["trex"]()
