"""Whether the methods of a comparison adapt the same matrices of the base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trex_ds.adapters.on_meta import adapted_on_meta
from trex_ds.adapters.targets import Coverage, coverage
from trex_ds.config import ConfigError


def check_places(config: Any, adapters: Mapping[str, Any], tasks: int) -> None:
    """Refuse methods that adapt different matrices: they would be compared by where they adapt, not by how.

    Methods that adapt no matrices, such as prompt tuning, are not compared with the others here.

    Args:
        config: transformers' configuration of the base model.
        adapters: the PEFT configuration of each method, by its name.
        tasks: how many the recipe has.

    Raises:
        ConfigError: naming the methods and what they adapt.
    """
    found: dict[str, Coverage] = {}
    for name, adapter in adapters.items():
        own = coverage(*adapted_on_meta(config, adapter, tasks))
        if own.adapted:
            found[name] = own
    first = next(iter(found), None)
    lines = [
        f"methods.{name}: adapts {own}, but {first} adapts {found[first]}; choose target_modules and exclude_modules "
        "that are the same for all, or set different_matrices: true"
        for name, own in found.items()
        if first is not None and own.adapted.keys() != found[first].adapted.keys()
    ]
    if lines:
        raise ConfigError(lines)
