"""A base model in 4 bits: ZeRO-3 on two ranks against one process without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("bitsandbytes")

from tests.ranks import run_ranks
from tests.training.jobs import ZERO3, run_job, write_recipe
from tests.training.test_job import assert_equal_losses, tensors
from trex_ds import TRexConfig
from trex_ds.answering import Answerer
from trex_ds.launching.process_group import start_distributed
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.quantized import Linear4bit

NF4 = {"name": None, "dtype": "float32", "quantization": "nf4"}
OFFLOADED = {
    **ZERO3,
    "zero_optimization": {
        **ZERO3["zero_optimization"],
        "offload_param": {"device": "cpu"},
        "offload_optimizer": {"device": "cpu"},
    },
    "zero_force_ds_cpu_optimizer": False,
}
NO_ZERO = {**ZERO3, "zero_optimization": {"stage": 0}}


def write_job(folder: Path, name: str, config: dict[str, Any], **overrides: Any) -> Path:
    (folder / f"{name}.json").write_text(json.dumps(config))
    model = {**NF4, "name": str(folder / "model")}
    overrides = {"model": model, "training__deepspeed": str(folder / f"{name}.json"), **overrides}
    return write_recipe(folder, output_dir=str(folder / name), **overrides)


def gradients(model_folder: Path, config: dict[str, Any], checkpointing: bool) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss over the same two rows for any number of ranks, of every tensor of a drawn adapter."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad
    from peft import get_peft_model
    from transformers.integrations import HfDeepSpeedConfig

    start_distributed(2)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    config = {key: value for key, value in config.items() if value != "auto" and key != "optimizer"}
    config["train_micro_batch_size_per_gpu"] = 2 // world
    alive = HfDeepSpeedConfig(config)  # until here, models are sharded while they load
    base = load_base_model(ModelConfig(str(model_folder), dtype="float32", quantization="nf4"))
    model = get_peft_model(base, TRexConfig(num_in_experts=2, num_out_experts=3, num_clusters=6))
    del alive
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(0)
    for parameter in trained.values():
        scale = 0.2 if parameter.numel() > 1 else 0.005  # gates are sharp: larger ones let no gradient through
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    optimizer = torch.optim.AdamW(trained.values(), lr=0.0)
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    ids = torch.randint(0, 40, (2, 12), generator=generator)
    scores = torch.randn(2, 6, generator=generator)
    own = slice(rank, None, world)
    # All labels count alike and all rows are as long, so the mean over ranks is the mean over rows.
    engine.backward(engine(input_ids=ids[own], labels=ids[own], intuition=scores[own]).loss)
    return {name: safe_get_full_grad(parameter).clone() for name, parameter in trained.items()}


def alone(folder: Path, job: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return gradients(folder / "model", NO_ZERO, False), run_job(job)


def together(folder: Path, jobs: list[Path]) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, Any]]]:
    variants = ((ZERO3, False), (ZERO3, True), (OFFLOADED, False))
    return [gradients(folder / "model", *variant) for variant in variants], [run_job(job) for job in jobs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("quantized")


@pytest.fixture(scope="module")
def one(folder) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    job = write_job(folder, "alone", NO_ZERO, training__micro_batch_size=4, evaluation__every=2)
    return run_ranks(1, folder, alone, folder, job)[0]


@pytest.fixture(scope="module")
def two(folder, one) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, Any]]]:
    jobs = [
        # Evaluated between the steps too, which must change nothing.
        write_job(folder, "sharded", ZERO3, evaluation__every=2),
        write_job(folder, "offloaded", OFFLOADED, evaluation__every=2, evaluation__gather_weights=True),
    ]
    return run_ranks(2, folder, together, folder, jobs)[0]


@pytest.mark.parametrize("variant", [0, 1, 2], ids=["sharded", "checkpointed", "offloaded"])
def test_gradients_of_every_adapter_tensor_are_those_of_one_process(one, two, variant):
    mine, theirs = two[0][variant], one[0]
    assert mine.keys() == theirs.keys()
    assert len(theirs) == 14 * 5
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("job", [0, 1], ids=["sharded", "offloaded"])
def test_jobs_of_two_ranks_have_the_losses_and_evaluations_of_one_process(one, two, job):
    mine, theirs = two[1][job], one[1]
    assert len(set(theirs["losses"].values())) == 3
    assert_equal_losses(mine["losses"], theirs["losses"])
    assert mine["base"] == theirs["base"]
    assert mine["adapted"] == theirs["adapted"]
    expected = tensors(Path(theirs["adapter"]))
    for name, tensor in tensors(Path(mine["adapter"])).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_every_rank_holds_its_part_of_the_packed_base(two, folder):
    record = json.loads((folder / "sharded" / "memory.json").read_text())
    for moment in ("after loading", "after the first step"):
        ranks = record[moment]
        assert [held["rank"] for held in ranks] == [0, 1]
        for held in ranks:
            base = held["roles"]["base"]
            assert base["held_bytes"] == pytest.approx(base["stored_bytes"] / 2, rel=0.01)
    model = tiny(folder)
    assert base["parameters"] == sum(p.numel() for p in model.parameters())
    assert base["stored_bytes"] < 4 * base["parameters"]


def tiny(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "model")


def test_adapter_of_a_4_bit_base_answers_from_its_folder(one, folder):
    answerer = Answerer.from_adapter(folder / "alone" / "adapter")
    assert any(isinstance(module, Linear4bit) for module in answerer.model.modules())
    items = one[1]["adapted"]
    assert answerer([item.prompt for item in items], max_new_tokens=6) == [item.generated for item in items]
