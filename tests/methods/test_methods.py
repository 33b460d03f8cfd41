"""The room of methods: what it imports, what its sections say, and that they are PEFT's."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import TypeAdapter

import trex_ds.adapters  # noqa: F401 (registers the routed methods with PEFT)
from trex_ds.adapter_folder import AdapterFolder
from trex_ds.adapters.hooks import Hooks, hooks
from trex_ds.adapters.peft_config import peft_config
from trex_ds.methods.base import Method, method
from trex_ds.methods.config import METHODS, AdapterConfig
from trex_ds.methods.peft import PeftMethod

OF_PEFT = sorted(name for name, section in METHODS.items() if issubclass(section, PeftMethod))
# Fields whose default is not PEFT's, because a recipe is to say what most people want without saying anything.
OTHER_DEFAULTS = {
    "target_modules": "all-linear",
    ("prompt_tuning", "num_virtual_tokens"): 20,
    ("shira", "random_seed"): 0,
    ("mhr", "n_splits"): 4,
}


def test_sections_are_made_without_torch_transformers_and_peft():
    code = (
        "import json, sys; from pydantic import TypeAdapter; from trex_ds.methods.config import AdapterConfig; "
        "TypeAdapter(AdapterConfig).validate_python({'method': 'lora'}).problems(); print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "peft", "deepspeed", "accelerate", "datasets", "numpy"}
    assert not heavy & {name.partition(".")[0] for name in json.loads(done.stdout)}


def spelled(annotation: Any) -> Any:
    """An annotation without descriptions, and with one spelling of unions."""
    if get_origin(annotation) is Annotated:
        return spelled(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return frozenset(spelled(part) for part in get_args(annotation))
    return annotation


@pytest.mark.parametrize("name", OF_PEFT)
def test_fields_are_those_of_pefts_configuration(name):
    """An upgrade of PEFT that renames a field, or changes its type or its default, is noticed."""
    section = METHODS[name]
    config_cls = PEFT_TYPE_TO_CONFIG_MAPPING[section.peft_type]
    theirs = {field.name: field for field in dataclasses.fields(config_cls)}
    their_types, our_types = get_type_hints(config_cls), get_type_hints(section)
    for field in dataclasses.fields(section):
        if field.name == "method":
            continue
        assert spelled(our_types[field.name]) == spelled(their_types[field.name]), field.name
        default = getattr(section(), field.name)
        if default != theirs[field.name].default:
            assert OTHER_DEFAULTS[(name, field.name) if field.name != "target_modules" else field.name] == default
    assert section.constants.keys() <= theirs.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_section_becomes_pefts_configuration_with_its_values(name):
    section = METHODS[name]()
    config = peft_config(section)
    assert (type(config), config.peft_type) == (PEFT_TYPE_TO_CONFIG_MAPPING[section.peft_type], section.peft_type)
    assert config.task_type == "CAUSAL_LM"
    for field, value in section.peft_fields().items():
        assert getattr(config, field) == value, field
    assert config.to_dict() == peft_config(TypeAdapter(AdapterConfig).validate_python({"method": name})).to_dict()


@pytest.mark.parametrize("name", METHODS)
def test_every_field_has_a_type_a_default_and_a_description(name):
    fields = METHODS[name].__pydantic_fields__
    assert fields["method"].default == METHODS[name]().method == name
    for field, info in fields.items():
        assert info.description, field
        assert not info.is_required(), field


@pytest.mark.parametrize("name", METHODS)
def test_an_adapters_folder_knows_which_methods_answer_by_task(name, tmp_path):
    peft_config(METHODS[name]()).save_pretrained(str(tmp_path))
    assert AdapterFolder(tmp_path).answers_by_task == METHODS[name].needs_tasks


def test_methods_that_are_not_lora_based_are_those_without_products_of_two_low_rank_matrices():
    others = {"trex", "shira", "loha", "lokr", "ia3", "prompt_tuning", "beft", "ln_tuning"}
    assert {name for name, section in METHODS.items() if not section.lora_based} == others


def test_hooks_of_a_misspelled_method_are_refused():
    with pytest.raises(KeyError, match="POLI"):
        hooks("POLI")(Hooks)


def test_a_peft_type_that_is_not_registered_is_told():
    class Lost(METHODS["lora"]):
        peft_type = "LOST"

    with pytest.raises(LookupError, match="no configuration 'LOST', the peft_type of method 'lora'; @routed_method"):
        peft_config(Lost())


def test_two_methods_cannot_have_one_name():
    with pytest.raises(ValueError, match=r"'lora' is Lora already; give .*Another another name"):

        @method
        class Another(Method):
            method: str = "lora"
