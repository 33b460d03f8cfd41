"""What an adapter's folder needs, and what is read from one."""

from __future__ import annotations

import json

import pytest

from trex_ds.adapter_folder import (
    CENTROIDS_FILE,
    CONFIG_FILE,
    RECIPE_FILE,
    TASKS_FILE,
    WEIGHTS_FILE,
    AdapterFolder,
)


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        (None, [CONFIG_FILE, WEIGHTS_FILE, CENTROIDS_FILE, RECIPE_FILE]),
        ({"peft_type": "TREX", "centroids_fingerprint": "12"}, [WEIGHTS_FILE, CENTROIDS_FILE, RECIPE_FILE]),
        ({"peft_type": "TREX", "centroids_fingerprint": None}, [WEIGHTS_FILE, RECIPE_FILE]),
        ({"peft_type": "LORA"}, [WEIGHTS_FILE, RECIPE_FILE]),
        ({"peft_type": "POLY"}, [WEIGHTS_FILE, RECIPE_FILE, TASKS_FILE]),
    ],
)
def test_each_file_that_the_method_needs_is_missing_until_it_is_there(tmp_path, config, needed):
    if config is not None:
        (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    folder = AdapterFolder(tmp_path)
    for count, name in enumerate(needed):
        assert folder.missing() == needed[count:]
        folder.file(name).write_text(json.dumps(config))
    assert folder.missing() == []


def test_peft_alone_needs_its_configuration_and_the_weights(tmp_path):
    assert AdapterFolder(tmp_path).missing(peft_only=True) == [CONFIG_FILE, WEIGHTS_FILE]


def test_what_is_written_is_read(tmp_path):
    folder = AdapterFolder(tmp_path / "made")
    assert (folder.recipe, folder.config) == (None, None)
    folder.write_recipe({"tasks": [{"source": "gym:aiw"}], "name": "ß"})
    folder.write_tasks(["b", "a"])
    folder.write_forms({"plain": ["lm_eval:boolq"]})
    assert folder.recipe == {"tasks": [{"source": "gym:aiw"}], "name": "ß"}
    assert folder.tasks == ["b", "a"]
    assert folder.forms == {"plain": ["lm_eval:boolq"]}
