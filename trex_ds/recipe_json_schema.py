"""A recipe's JSON schema (draft 7), by which editors complete, describe and check it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema


class _Schema(GenerateJsonSchema):
    """Sections that have several kinds become a choice by `method`, so that an editor knows which one is meant."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        discriminator = schema["discriminator"]
        assert callable(discriminator), "the kinds of a section are told apart by a function"
        default = discriminator({})
        kinds = {str(kind): self.generate_inner(choice) for kind, choice in schema["choices"].items()}
        chosen = [
            {"if": {"properties": {"method": {"const": kind}}, "required": ["method"]}, "then": section}
            for kind, section in kinds.items()
        ]
        without = {"if": {"not": {"required": ["method"]}}, "then": kinds[default]}
        method = {"enum": list(kinds), "default": default}
        return {"type": "object", "properties": {"method": method}, "allOf": [*chosen, without]}


def schema_text(recipe: type) -> str:
    """The JSON schema of the recipes that are read into this class, as a file's text."""
    schema = TypeAdapter(recipe).json_schema(schema_generator=_Schema)
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **_plain(schema)}, indent=1) + "\n"


def _plain(value: Any) -> Any:
    """A schema as draft 7 has it, which heeds nothing beside a `$ref`; without titles, which repeat the names."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.replace("#/$defs/", "#/definitions/")
    if not isinstance(value, dict):
        return value
    named = {"definitions" if key == "$defs" else key: item for key, item in value.items()}
    made = {key: _plain(item) for key, item in named.items() if not (key == "title" and isinstance(item, str))}
    if "$ref" in made and len(made) > 1:
        return {"allOf": [{"$ref": made.pop("$ref")}], **made}
    return made
