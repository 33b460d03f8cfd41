from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist

from tests.ranks import run_ranks
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.embedded import SMOLLM2, embedded_model_folder


def convert_on_the_last_rank(cache: Path) -> Path | None:
    os.environ["TREX_DS_CACHE"] = str(cache)
    dist.init_process_group("gloo")
    folder = embedded_model_folder(SMOLLM2) if dist.get_rank() == 1 else None
    dist.barrier()
    return folder


def test_any_rank_can_be_the_one_that_converts(tmp_path, monkeypatch):
    monkeypatch.setenv("TREX_DS_CACHE", str(tmp_path / "cache"))
    _, folder = run_ranks(2, tmp_path, convert_on_the_last_rank, tmp_path / "cache")
    assert folder == embedded_model_folder(SMOLLM2)
    model = load_base_model(ModelConfig(name=SMOLLM2))
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    # Weights that had not been in the file would be random: unscaled and without this model's outliers.
    assert model.model.norm.weight.std() > 0.1
