"""The two things that PEFT does not let a new method do from outside."""

from __future__ import annotations

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType


def add_peft_type(name: str) -> None:
    """Add a member to PEFT's PeftType.

    PEFT has a registry for methods but keys it by an enum, and an enum with members is closed to
    subclassing; the saved adapter_config.json names its method by that member.
    """
    if name in PeftType.__members__:
        return
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    PeftType._member_names_.append(name)
    type.__setattr__(PeftType, name, member)


def register(config_cls: type[PeftConfig], model_cls: type[BaseTuner]) -> None:
    """What peft.utils.register_peft_method does, for several methods that share a layer and so its prefix.

    That function wants a prefix of its own for each method, to tell the parameters of different layers apart.
    """
    peft_type = PeftType[config_cls.method.upper()]
    PEFT_TYPE_TO_PREFIX_MAPPING[peft_type] = model_cls.prefix
    PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config_cls
    PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = model_cls
