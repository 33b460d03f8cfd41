"""What fits, and what is said to be fast, on machines of different shapes."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.adapters.methods import METHODS, SMALL, section
from tests.planning.jobs import SMALL_BUCKETS, planned_recipe
from tests.training.jobs import ZERO3
from trex_ds.adapters.counts import count, trained
from trex_ds.adapters.peft_config import peft_config
from trex_ds.config import ConfigError
from trex_ds.methods.limits import ZERO3 as ZERO3_LIMIT
from trex_ds.planning.candidates import GIB, Planner, recommend

ONLY_TENSORS = {"cuda_memory": 0, "free_share": 0}


@pytest.fixture
def folder(tmp_path):
    """Configurations beside each other, and a model whose weights are most of what it needs."""
    LlamaConfig(
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=1,
        num_attention_heads=8,
        vocab_size=512,
    ).save_pretrained(tmp_path / "wide")
    (tmp_path / "zero").mkdir()
    for name, zero in {
        "zero2": {"stage": 2},
        "zero3": ZERO3["zero_optimization"],
        "offload": ZERO3["zero_optimization"] | {"offload_param": {"device": "cpu"}},
    }.items():
        config = ZERO3 | {"bf16": {"enabled": True}, "zero_optimization": SMALL_BUCKETS | zero}
        (tmp_path / "zero" / f"{name}.json").write_text(json.dumps(config))
    (tmp_path / "zero" / "float32.json").write_text(json.dumps(ZERO3))
    return tmp_path


def planner(folder, **overrides) -> Planner:
    given = {
        "model__name": str(folder / "wide"),
        "model__dtype": "bfloat16",
        "training__deepspeed": str(folder / "zero" / "zero3.json"),
        "data__max_length": 64,
        "gpus": 4,
        "largest_micro_batch": 8,
        "assumptions": ONLY_TENSORS,
    }
    return Planner(planned_recipe(folder, **(given | overrides)))


def name(settings):
    return settings.file.rsplit("/", 1)[1].removesuffix(".json")


def names(candidates):
    return {name(c.settings) for c in candidates if c.problem is None}


def test_configurations_beside_the_recipes_of_the_same_type_are_tried_with_and_without_checkpointing(folder):
    tried = planner(folder).best_of_each()
    found = [(name(c.settings), c.checkpointing) for c in tried]
    assert found == [(expected, on) for expected in ("zero3", "offload", "zero2") for on in (False, True)]


def test_the_less_memory_the_more_is_sharded_and_at_last_nothing_fits(folder):
    plans = planner(folder)
    one_row = {
        name(settings): min(plans.candidate(settings, on, 1).memory.peak for on in (False, True)) / GIB
        for settings in plans.settings
    }
    assert one_row["offload"] < one_row["zero3"] < one_row["zero2"]

    def fitting(gpu_memory: float) -> set[str]:
        return names(planner(folder, gpu_memory=gpu_memory).best_of_each())

    assert fitting(one_row["zero2"] * 1.001) == {"zero2", "zero3", "offload"}
    assert fitting(one_row["zero3"] * 1.001) == {"zero3", "offload"}
    assert fitting(one_row["offload"] * 1.001) == {"offload"}
    assert fitting(one_row["offload"] * 0.999) == set()


def test_what_cuda_takes_and_what_stays_free_count(folder):
    written = planner(folder).as_written()
    needed = written.memory.peak / GIB
    assumptions = {"cuda_memory": 1.0, "free_share": 0.5}
    enough = 2 * (needed + 1.0)
    assert planner(folder, gpu_memory=enough * 1.001, assumptions=assumptions).as_written().problem is None
    problem = planner(folder, gpu_memory=enough - 1.0, assumptions=assumptions).as_written().problem
    assert problem == "0.5 GiB too large"


def test_offloaded_weights_of_all_gpus_must_fit_a_nodes_memory(folder):
    offloading = {"training__deepspeed": str(folder / "zero" / "offload.json")}
    held = sum(planner(folder, **offloading).as_written().memory.cpu.values()) * 4 / GIB
    assert planner(folder, cpu_memory=held * 1.001, **offloading).as_written().problem is None
    assert "CPU" in planner(folder, cpu_memory=held * 0.999, **offloading).as_written().problem


def test_a_slow_network_is_for_what_sends_least_and_a_small_gpu_for_what_holds_least(folder):
    slow = {**ONLY_TENSORS, "network_bandwidth": 0.01}
    assert recommend(planner(folder, nodes=2, assumptions=slow).best_of_each()).settings.stage == 2
    held = planner(folder).as_written().memory.peak / GIB
    assert recommend(planner(folder, gpu_memory=held / 100).best_of_each()) is None


def test_offloading_is_not_recommended_where_it_gains_nothing(folder):
    instant = {
        **ONLY_TENSORS,
        "tflops": 1e-6,  # so that moving bytes takes no part of the time
    }
    best = recommend(planner(folder, assumptions=instant).best_of_each())
    assert not best.settings.offloads


def test_more_ranks_hold_less_each_and_send_more(folder):
    few, many = (planner(folder, gpus=gpus).as_written() for gpus in (2, 8))
    assert many.memory.kept["base"] == few.memory.kept["base"] / 4
    assert many.traffic.gather_bytes == pytest.approx(few.traffic.gather_bytes * (7 / 8) / (1 / 2), rel=1e-3)
    alone = planner(folder, gpus=1).as_written()
    assert (alone.traffic.gather_bytes, alone.traffic.gather_calls, alone.traffic.reduce_bytes) == (0, 0, 0)


def test_activations_grow_with_rows_and_checkpointing_keeps_fewer(folder):
    plans = planner(folder)
    one, four = (plans.candidate(plans.settings[0], False, rows).memory for rows in (1, 4))
    assert four.saved - one.saved == pytest.approx(3 * one.saved, rel=1e-3)
    assert plans.candidate(plans.settings[0], True, 4).memory.saved < four.saved / 3


def test_a_stage_that_is_not_planned_is_refused(folder):
    file = folder / "zero" / "zero2.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"zero_optimization": {"stage": 0}}))
    with pytest.raises(ConfigError, match=r"zero2\.json has ZeRO stage 0; a plan knows 1, 2 and 3"):
        planner(folder, training__deepspeed=str(file)).as_written()


def test_a_model_that_does_not_run_without_data_is_refused(folder, monkeypatch):
    def data_dependent(self, *args, **kwargs):
        return torch.empty((), device="meta").item()

    monkeypatch.setattr(LlamaForCausalLM, "forward", data_dependent)
    with pytest.raises(ConfigError, match="a LlamaForCausalLM cannot be planned"):
        planner(folder).as_written()


@pytest.mark.parametrize("method", ["adalora", "shira", "prompt_tuning", "poly", "mhr"])
def test_methods_of_which_no_plan_can_be_made_are_refused(folder, method):
    with pytest.raises(ConfigError, match=f"adapter.method: no plan can be made of {method}: .*; plan lora with about"):
        planner(folder, adapter={"method": method}, evaluation__every=None, data__packing=False)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"adalora", "shira", "prompt_tuning", "poly", "mhr"}))
def test_the_other_methods_are_planned_with_what_they_allow(folder, method):
    own = section(method)
    planned = planner(
        folder,
        adapter={"method": method} | SMALL.get(method, {}),
        training__deepspeed=str(folder / "zero" / "zero2.json"),
    )
    sizes = planned.model.config
    assert sum(p.numel() for p in planned.model.parameters() if p.requires_grad) == trained(
        count(sizes, peft_config(own))
    )
    assert planned.as_written().problem is None
    assert {settings.stage for settings in planned.settings} == ({2} if ZERO3_LIMIT in own.refuses else {2, 3})
