"""The `adapter` section of a recipe: one class a method, chosen by `adapter.method`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Union, get_type_hints

from peft import PeftConfig, PolyConfig
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

NAME_MODULES = "name the modules, as target_modules: [q_proj, v_proj]"
"""The way out where `picks_unnamed`."""

_Allowed = tuple[Callable[[Any], bool], str]
# What fields may hold where they are not null. PEFT checks the most of it when the model has been loaded, or never.
_ALLOWED: dict[str, _Allowed] = {
    **dict.fromkeys(
        ("lora_alpha", "alpha", "randlora_alpha"),
        (lambda value: 0 < value < math.inf, "must be a finite number above 0"),
    ),
    **dict.fromkeys(
        ("lora_dropout", "vera_dropout", "randlora_dropout", "rank_dropout"),
        (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
    ),
    **dict.fromkeys(("tinit", "tfinal"), (lambda value: value >= 0, "must be at least 0")),
    "d_initial": (
        lambda value: value != 0 and math.isfinite(value),
        "must be finite and not 0, from which nothing is learned",
    ),
    "decompose_factor": (lambda value: value == -1 or value >= 1, "must be -1 or at least 1"),
    "target_modules": (lambda value: bool(value), "names nothing; name modules, or leave it out"),
    "layers_to_transform": (
        lambda value: value != [] and min(value if isinstance(value, list) else [value]) >= 0,
        "must be indices of layers, which begin at 0; null: all layers",
    ),
}
_SIZES = ("r", "init_r", "target_r", "num_virtual_tokens", "n_skills", "n_splits")
_PEFT_SIZES: dict[str, _Allowed] = dict.fromkeys(
    _SIZES, (lambda value: value >= 1, "must be a whole number of at least 1")
)


class AdapterSection:
    """What every adapter section can do; its fields are those of the method's PEFT configuration."""

    method: str
    config_cls: ClassVar[type[PeftConfig]]
    constants: ClassVar[dict[str, Any]] = {}
    """Fields of the configuration that make the method what it is."""
    refuses: ClassVar[Mapping[str, str]] = {}
    """What the method cannot be used with (a name of limits.py), and why."""

    def problems(self) -> list[str]:
        """What can be told to be wrong with the section's values before there is a model."""
        routed = issubclass(self.config_cls, RoutedConfig)  # which checks its sizes itself
        values = _fields(self)
        allowed = _ALLOWED if routed else _ALLOWED | _PEFT_SIZES
        found = [
            f"{name}: {what}, got {values[name]!r}"
            for name, (is_allowed, what) in allowed.items()
            if values.get(name) is not None and not is_allowed(values[name])
        ]
        if routed and values["target_modules"] is None:
            found.append("target_modules: must name the linears to adapt, as all-linear or [q_proj, v_proj]; got null")
        if not routed:
            found = found or _peft_problems(values, self.picks_unnamed)
            if found:
                return found
        try:
            self.build()
        except (ValueError, TypeError) as error:
            found.append(str(error).removeprefix(f"{self.config_cls.__name__}: "))
        return found

    def build(self) -> PeftConfig:
        """The PEFT configuration that this section describes."""
        fields = _fields(self)
        del fields["method"]
        return self.config_cls(**fields, **self.constants)

    @property
    def needs_intuition(self) -> bool:
        """Whether the model's forward takes intuition scores, so that a job has to make them."""
        config = self.build()
        return isinstance(config, RoutedConfig) and config.needs_intuition

    @property
    def picks_unnamed(self) -> bool:
        """Whether it adapts some layers' linears without naming these, which none of PEFT's own methods can do."""
        values = _fields(self)
        return values.get("layers_to_transform") is not None and isinstance(values.get("target_modules"), str)

    @property
    def needs_tasks(self) -> bool:
        """Whether the model's forward takes `task_ids`, so that a job has to number its tasks."""
        return self.config_cls is PolyConfig


def _fields(section: Any) -> dict[str, Any]:
    return {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}


def _peft_problems(values: dict[str, Any], picks_unnamed: bool) -> list[str]:
    """What two of the values of a PEFT method's section, each of them allowed, together show to be wrong."""
    found = []
    targets, feedforward = values.get("target_modules"), values.get("feedforward_modules")
    if picks_unnamed:
        found.append(
            f"layers_to_transform: PEFT forgets it, or refuses it, where target_modules is {targets!r}; {NAME_MODULES}"
        )
    if isinstance(feedforward, list) and isinstance(targets, list) and (others := set(feedforward) - set(targets)):
        found.append(
            f"feedforward_modules: {', '.join(sorted(others))} must be among target_modules too, which are "
            f"{', '.join(targets)}"
        )
    if values["method"] == "adalora" and values["target_r"] >= values["init_r"]:
        found.append(f"target_r must lie between 0 and init_r = {values['init_r']}, got {values['target_r']!r}")
    if values["method"] == "mhr" and values["n_splits"] == 1:
        found.append("n_splits: 1 makes Poly of MHR; take at least 2, or adapter.method poly")
    return found


class _MoR1E(AdapterSection):
    """T-REX's first version has one number of experts."""

    num_experts: int

    def build(self) -> PeftConfig:
        fields = _fields(self)
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
