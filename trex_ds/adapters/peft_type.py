"""The two things that PEFT does not let a new method do from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType

from trex_ds.adapters.hooks import hooks
from trex_ds.adapters.model import RoutedModel
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.routed_hooks import RoutedHooks

C = TypeVar("C", bound=RoutedConfig)


def routed_method(name: str) -> Callable[[type[C]], type[C]]:
    """A decorator that registers a configuration class with PEFT as a routed method.

    It does what peft.utils.register_peft_method does, for several methods that share a layer and so its prefix: that
    function wants a prefix of its own for each method, to tell the parameters of different layers apart.

    Args:
        name: PEFT's type, as in a saved adapter_config.json; the `peft_type` of the method's section.
    """

    def register(config_cls: type[C]) -> type[C]:
        config_cls.registered_as = _add_peft_type(name)
        PEFT_TYPE_TO_PREFIX_MAPPING[config_cls.registered_as] = RoutedModel.prefix
        PEFT_TYPE_TO_CONFIG_MAPPING[config_cls.registered_as] = config_cls
        PEFT_TYPE_TO_TUNER_MAPPING[config_cls.registered_as] = RoutedModel
        hooks(name)(RoutedHooks)
        return config_cls

    return register


def _add_peft_type(name: str) -> PeftType:
    """Add a member to PEFT's PeftType.

    PEFT has a registry for methods but keys it by an enum, and an enum with members is closed to
    subclassing; the saved adapter_config.json names its method by that member.
    """
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = name
        member._value_ = name
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
        PeftType._member_names_.append(name)
        type.__setattr__(PeftType, name, member)
    return PeftType[name]
