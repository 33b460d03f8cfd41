"""Methods that adapt different matrices are not compared unawares."""

from __future__ import annotations

import pytest

from tests.families.models import family_config
from trex_ds.adapters.peft_config import peft_config
from trex_ds.comparison.places import check_places
from trex_ds.config import ConfigError
from trex_ds.methods.config import METHODS

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def adapters(**sections) -> dict:
    return {name: peft_config(METHODS[values.pop("method")](**values)) for name, values in sections.items()}


def test_lora_that_adapts_experts_is_not_compared_with_trex_that_does_not():
    methods = adapters(trex={"method": "trex"}, lora={"method": "lora"})
    with pytest.raises(
        ConfigError, match=r"methods\.lora: adapts .*gate_up_proj.* but trex adapts .* different_matrices"
    ):
        check_places(family_config("mixtral"), methods, tasks=1)
    same = adapters(
        trex={"method": "trex", "target_modules": LINEARS}, lora={"method": "lora", "target_modules": LINEARS}
    )
    check_places(family_config("mixtral"), same, tasks=1)


def test_other_target_modules_are_other_places():
    methods = adapters(a={"method": "trex"}, b={"method": "trex", "exclude_modules": ["down_proj"]})
    with pytest.raises(ConfigError, match=r"methods\.b: adapts q_proj, .*not adapted: mlp\.down_proj"):
        check_places(family_config("llama"), methods, tasks=1)


def test_methods_without_matrices_are_compared_with_any():
    methods = adapters(a={"method": "trex"}, b={"method": "prompt_tuning"}, c={"method": "lora"})
    check_places(family_config("llama"), methods, tasks=1)
