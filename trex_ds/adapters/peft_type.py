"""The one thing that PEFT does not let a new method do from outside."""

from __future__ import annotations

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
