from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from rich.console import Console

from tests.conftest import tiny_llama
from tests.ranks import run_ranks
from tests.training.jobs import run_job, write_recipe
from trex_ds import TRexConfig
from trex_ds.modeling.held import Held, Share, check_sharded, held_by_this_rank, peak_bytes, reset_peak
from trex_ds.training import job
from trex_ds.training.memory_record import memory_metrics, memory_table


def adapted(base: torch.nn.Module) -> torch.nn.Module:
    config = TRexConfig(num_in_experts=2, num_out_experts=3, num_clusters=6, target_modules=["q_proj"])
    return get_peft_model(base, config)


def test_parameters_and_bytes_are_counted_by_role(base):
    count = sum(p.numel() for p in base.parameters())
    roles = held_by_this_rank(adapted(base)).roles
    whole = {
        "base": count,
        "experts A": 2 * 2 * 32,
        "experts B": 2 * 3 * 32,
        "router": 2 * 6 * 32,
        "gates": 2 * 2,
    }
    assert roles == {role: Share(n, 4 * n, 4 * n) for role, n in whole.items()}


def test_tied_weights_are_counted_once():
    model = tiny_llama(tie_word_embeddings=True)
    assert held_by_this_rank(model).roles["base"].parameters == sum(p.numel() for p in model.parameters())


def test_weights_in_4_bits_count_as_weights(tmp_path):
    pytest.importorskip("bitsandbytes")
    from trex_ds.modeling.base import load_base_model
    from trex_ds.modeling.config import ModelConfig

    model = tiny_llama()
    model.save_pretrained(tmp_path)
    packed = load_base_model(ModelConfig(str(tmp_path), quantization="nf4"))
    share = held_by_this_rank(packed).roles["base"]
    assert share.parameters == sum(p.numel() for p in model.parameters())
    assert share.held_bytes == share.stored_bytes == sum(p.nbytes for p in packed.parameters())


def test_states_of_the_optimizer_are_counted(base):
    model = adapted(base)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=torch.tensor([[1, 2, 3]]), intuition=torch.zeros(1, 6)).logits.sum().backward()
    assert held_by_this_rank(model, optimizer).optimizer_bytes == 0
    optimizer.step()
    tensors = sum(3 * p.nbytes + 4 for p in trained)  # the parameter, two moments, and the count of steps
    assert held_by_this_rank(model, optimizer).optimizer_bytes == tensors


def test_base_that_deepspeed_never_saw_is_not_sharded(base):
    with pytest.raises(
        RuntimeError, match=r"the base model was not sharded: [\d,]+ bytes of model.embed_tokens.weight"
    ):
        check_sharded(base)


def train_without_sharded_loading(file: Path) -> None:
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    load = job.load_base_model

    def load_whole(config):
        unset_hf_deepspeed_config()
        return load(config)

    job.load_base_model = load_whole
    run_job(file)


def test_job_whose_base_was_loaded_whole_under_zero3_ends_before_it_trains(tmp_path):
    file = write_recipe(tmp_path)
    with pytest.raises(AssertionError, match="ZeRO-3 was asked for, but the base model was not sharded"):
        run_ranks(1, tmp_path, train_without_sharded_loading, file)
    assert (tmp_path / "run" / "memory.json").is_file()  # what was held can still be looked at
    assert not (tmp_path / "run" / "evaluation_base.json").exists()


def ranks(count: int, unit: int = 1) -> list[Held]:
    return [
        Held(r, "host", {"base": Share(100, 200, (100 + r) * unit), "experts A": Share(4, 8, 4)}, 7, 1000 - r)
        for r in range(count)
    ]


def printed(table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_table_shows_each_rank_or_the_extremes_of_many():
    few, many = (printed(memory_table(ranks(count, 2**30), "now")) for count in (2, 9))
    assert "in GiB" in few
    assert "rank 1" in few
    assert "101.000" in few
    assert "rank" not in many.replace("each rank", "").replace("of a rank", "")
    assert "least of a rank" in many
    assert "108.000" in many
    assert "104.000" not in many


def test_metrics_are_the_most_that_a_rank_holds():
    assert memory_metrics(ranks(3), "after loading") == {
        "system/after_loading/base_bytes": 102,
        "system/after_loading/experts_A_bytes": 4,
        "system/after_loading/optimizer_bytes": 7,
        "system/after_loading/peak_bytes": 1000,
    }


def test_peak_is_that_since_the_last_reset():
    large = torch.ones(100_000_000, dtype=torch.uint8)
    reached = peak_bytes()
    assert reached > large.nbytes
    del large
    reset_peak()
    assert peak_bytes() < reached - 50_000_000
