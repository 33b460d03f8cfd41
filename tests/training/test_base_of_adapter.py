"""An adapter after its job: in the same process, with a base model that has moved, and with another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.ranks import run_ranks
from tests.training.jobs import run_job, write_model, write_recipe
from trex_ds.answering import Answerer


def train_and_answer(folder: Path) -> dict[str, Any]:
    """A job under ZeRO-3 whose adapter then answers its own questions in this process, and once more elsewhere."""
    job = run_job(write_recipe(folder, training__max_steps=1))
    prompts = [item.prompt for item in job["adapted"]][:4]
    adapter = folder / "run" / "adapter"
    found = {"job": [item.generated for item in job["adapted"]][:4]}
    found["in place"] = Answerer.from_adapter(adapter)(prompts, max_new_tokens=6)
    (folder / "model").rename(folder / "elsewhere")
    found["moved"] = Answerer.from_adapter(adapter, str(folder / "elsewhere"))(prompts, max_new_tokens=6)
    return found


def write_other_model(folder: Path) -> None:
    write_model(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] *= 2
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("base")


@pytest.fixture(scope="module")
def answers(folder) -> dict[str, Any]:
    return run_ranks(1, folder, train_and_answer, folder)[0]


def test_the_process_that_trained_can_answer(answers):
    assert answers["in place"] == answers["job"]


def test_a_base_model_that_has_moved_is_found_by_its_new_place(answers, folder):
    assert answers["moved"] == answers["job"]
    with pytest.raises(ValueError, match=r"cannot be loaded: name: .*if it is elsewhere now, say where: --model"):
        Answerer.from_adapter(folder / "run" / "adapter")


def test_another_base_model_of_the_same_shape_is_refused(answers, folder, tmp_path):
    del answers
    write_other_model(tmp_path / "other")
    with pytest.raises(ValueError, match=r"was trained on .*/model \(llama, weights \w{16}\), and .*/other \(llama, w"):
        Answerer.from_adapter(folder / "run" / "adapter", str(tmp_path / "other"))


def test_a_checkpoint_of_another_base_model_is_not_gone_on_from(answers, folder):
    """The recipe names a folder that now holds another model."""
    del answers
    from trex_ds.config import read_recipe
    from trex_ds.training.recipe import Recipe
    from trex_ds.training.saving import write_identity

    write_other_model(folder / "model")
    recipe = read_recipe(Recipe, ["--config", str(write_recipe(folder))], "")
    (folder / "run" / "checkpoint-1").mkdir()
    going_on = read_recipe(Recipe, ["--config", str(folder / "run.yaml"), "--training.resume", "true"], "")
    with pytest.raises(
        ValueError, match=r"model.name: the checkpoint in .* was trained on .*: weights \w+, not \w+; name"
    ):
        write_identity(going_on.model, folder / "run", resumed=True)
    write_identity(recipe.model, folder / "run", resumed=False)
    write_identity(going_on.model, folder / "run", resumed=True)
