"""Whole jobs of two ranks, a method each: what they save is what they trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from tests.adapters.methods import SMALL, section, side_inputs
from tests.ranks import run_ranks
from tests.training.jobs import ROOT, run_job, write_recipe
from trex_ds.adapters.loading import WEIGHTS_FILE, load_adapted
from trex_ds.methods.limits import HELD_OUT, RESUMING, ZERO, ZERO3
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.zero3 import whole_weights

METHODS = [
    *("lora", "adalora", "vera", "ia3", "prompt_tuning", "poly", "loha", "shira"),
    *("flylora", "smora", "sira", "hydralora", "mora"),
]
RESUMED = "flylora"  # frozen tensors, which DeepSpeed's checkpoints leave out, and buffers
IDS = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(0))


def stage_file(folder: Path, method: str) -> Path:
    """The DeepSpeed configuration of the highest stage that the method allows."""
    refused = section(method).refuses
    if ZERO in refused:
        return ROOT / "ds_configs" / "zero0_fp32.json"
    if ZERO3 not in refused:
        return folder / "zero3.json"
    config = json.loads((folder / "zero3.json").read_text())
    (folder / "zero2.json").write_text(json.dumps(config | {"zero_optimization": {"stage": 2}}))
    return folder / "zero2.json"


def write_job(folder: Path, method: str, **overrides: Any) -> Path:
    refused = section(method).refuses
    write_recipe(folder)
    settings = {
        "output_dir": str(folder / method),
        "adapter": {"method": method} | SMALL.get(method, {}),
        "training__deepspeed": str(stage_file(folder, method)),
        "training__save_every": None if RESUMING in refused else 2,
        "evaluation__every": None if HELD_OUT in refused else 2,
        "evaluation__gather_weights": True,
        "evaluation__batch_size": 12,
    }
    return write_recipe(folder, **settings | overrides)


def logits(model: Any, method: str) -> torch.Tensor:
    with torch.no_grad():
        found = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **side_inputs(method, len(IDS))).logits
    return found[:, -IDS.shape[1] :]


def run_jobs(files: dict[str, Path], resumed: Path) -> dict[str, Any]:
    """Run jobs on a rank: each job's result, with the logits of its model at the moment that it is saved."""
    from trex_ds.training import job

    found: dict[str, Any] = {}
    saved = {}
    original = job.save_adapter

    def save_adapter(trainer: Any, recipe: Any, folder: Path) -> None:
        method = recipe.adapter.method
        with whole_weights(trainer.model_wrapped):
            saved["logits"] = logits(trainer.model.eval(), method)
        original(trainer, recipe, folder)

    with mock.patch.object(job, "save_adapter", save_adapter):
        for name, file in files.items():
            found[name] = run_job(file) | saved
        if torch.distributed.get_rank() == 0:  # as if the job had died after its first checkpoint
            output = Path(found[RESUMED]["adapter"]).parent
            shutil.rmtree(output / "checkpoint-3")
            (output / "adapter").rename(output / "uninterrupted")
        torch.distributed.barrier()
        found["resumed"] = run_job(resumed) | saved
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("methods")


@pytest.fixture(scope="module")
def jobs(folder) -> dict[str, Any]:
    files = {method: write_job(folder, method) for method in METHODS}
    text = files[RESUMED].read_text()
    resumed = folder / "resumed.yaml"
    resumed.write_text(text.replace("timeout_minutes: 2", "timeout_minutes: 2\n  resume: true"))
    first, second = run_ranks(2, folder, run_jobs, files, resumed)
    for method in METHODS:
        torch.testing.assert_close(second[method]["logits"], first[method]["logits"], rtol=0, atol=0)
    return first


def base(folder: Path) -> Any:
    return load_base_model(ModelConfig(str(folder / "model"), dtype="float32"))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS_FILE)


@pytest.mark.parametrize("method", METHODS)
def test_saved_adapter_has_the_logits_of_the_trained_one(method, jobs, folder):
    torch.manual_seed(99)  # what is drawn and not saved would differ
    loaded = load_adapted(base(folder), folder / method / "adapter").eval()
    torch.testing.assert_close(logits(loaded, method), jobs[method]["logits"], rtol=1e-4, atol=1e-5)
    with loaded.disable_adapter():
        assert (logits(loaded, method) - jobs[method]["logits"]).abs().max() > 1e-3
    assert len(set(jobs[method]["losses"].values())) == 3


@pytest.mark.parametrize("method", [method for method in METHODS if RESUMING not in section(method).refuses])
def test_checkpoints_and_the_best_adapter_are_whole(method, jobs, folder):
    output = folder / method
    best = json.loads((output / "best.json").read_text())["step"]
    at_step_2, last = tensors(output / "checkpoint-2"), tensors(output / "checkpoint-3")
    assert_same(tensors(output / "best"), at_step_2 if best == 2 else last)
    assert_same(tensors(output / "adapter"), tensors(output / "best"))
    assert any(not torch.equal(last[name], tensor) for name, tensor in at_step_2.items())


def assert_same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, msg=f"{name} differs")


def test_resumed_job_has_the_same_frozen_tensors_and_biases(jobs, folder):
    assert_same(tensors(folder / RESUMED / "adapter"), tensors(folder / RESUMED / "uninterrupted"))
    torch.testing.assert_close(jobs["resumed"]["logits"], jobs[RESUMED]["logits"])
