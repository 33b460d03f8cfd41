"""The JSON schemas that recipes name: as the sections are, and what an editor would say by them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from trex_ds.commands.schema import RECIPE_CLASSES, recipe_class
from trex_ds.packaged import RECIPES, SCHEMAS, names_in
from trex_ds.recipe_json_schema import schema_text

PACKAGED = names_in(SCHEMAS)


def errors(command: str, recipe: Any) -> list[str]:
    """What the schema has against a recipe: path and message of each error."""
    validator = jsonschema.Draft7Validator(json.loads(schema_text(recipe_class(command))))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(recipe)]


@pytest.mark.parametrize("command", PACKAGED)
def test_packaged_schemas_are_up_to_date(command):
    text = (SCHEMAS / f"{command}.json").read_text()
    assert text == schema_text(recipe_class(command)), "run `make schemas`"


@pytest.mark.parametrize("command", RECIPE_CLASSES)
def test_schemas_are_valid_and_describe_fields(command):
    schema = json.loads(schema_text(recipe_class(command)))
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["properties"]["output_dir"]["description"].startswith("Folder for ")
    assert "title" not in json.dumps(schema)


@pytest.mark.parametrize("name", names_in(RECIPES))
def test_packaged_recipes_fit_the_schema_that_they_name(name):
    text = (RECIPES / f"{name}.yaml").read_text()
    named = RECIPES / text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert named.resolve() == SCHEMAS / named.name
    assert errors(named.stem, yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"adapter": {"num_clusters": 32}}, []),
        ({"adapter": {"method": "smora", "top_k": 4}}, []),
        ({"adapter": {"top_k": 4}}, ["$.adapter: Additional properties are not allowed ('top_k' was unexpected)"]),
        ({"adapter": {"method": "smora", "top_k": "x"}}, ["$.adapter.top_k: 'x' is not of type 'integer'"]),
        ({"training": {"max_steps": 0}}, ["$.training.max_steps: 0 is not valid under any of the given schemas"]),
        ({"sed": 1}, ["$: Additional properties are not allowed ('sed' was unexpected)"]),
    ],
)
def test_an_editor_sees_what_is_wrong(change, expected):
    recipe = {"output_dir": "runs/x", "tasks": [{"source": "gym:syllogism"}], **change}
    assert errors("train", recipe) == expected


def test_an_unknown_method_is_seen():
    recipe = {"output_dir": "runs/x", "tasks": [{"source": "gym:syllogism"}], "adapter": {"method": "smorra"}}
    (error,) = errors("train", recipe)
    assert error.startswith("$.adapter.method: 'smorra' is not one of ['trex', ")
