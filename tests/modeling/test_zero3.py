from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from tests.conftest import tiny_llama
from tests.ranks import run_ranks
from trex_ds import TRexConfig
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.zero3 import whole_weights

CONFIGS = Path(__file__).parents[2] / "ds_configs"
SCORES = torch.linspace(-1, 1, 6).view(1, 6)
IDS = torch.tensor([[1, 5, 9, 3, 7]])


def test_whole_weights_leave_a_plain_model_alone(base):
    before = {name: p.clone() for name, p in base.named_parameters()}
    with whole_weights(base):
        pass
    assert all(torch.equal(p, before[name]) for name, p in base.named_parameters())


def gathered_between_passes(folder: Path, file: str, checkpointing: bool) -> list[int]:
    """Elements of the base that lie gathered on this rank after a forward pass of a training step."""
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    from trex_ds.launching.process_group import start_distributed

    start_distributed(2)
    zero = json.loads((CONFIGS / file).read_text())["zero_optimization"]
    # All of so small a model would be fetched ahead for the backward pass, and be too small to shard.
    zero |= {"stage3_prefetch_bucket_size": 0, "stage3_param_persistence_threshold": 0}
    config = {"bf16": {"enabled": False}, "train_micro_batch_size_per_gpu": 1, "zero_optimization": zero}
    alive = HfDeepSpeedConfig(config)
    base = load_base_model(ModelConfig(str(folder), dtype="float32", quantization="nf4"))
    model = get_peft_model(base, TRexConfig(num_in_experts=2, num_out_experts=3, num_clusters=6))
    del alive
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    found = []
    for _ in range(3):  # the first step records the order of the parameters, which later ones use
        loss = engine(input_ids=IDS, labels=IDS, intuition=SCORES).loss
        packed = [p for name, p in model.named_parameters() if not p.requires_grad and "_proj" in name]
        assert len(packed) == 14
        found.append(sum(p.data.numel() for p in packed))
        engine.backward(loss)
        engine.step()
    return found


def both(folder: Path) -> dict[str, list[int]]:
    return {
        "4 bits": gathered_between_passes(folder, "zero3_4bit.json", False),
        "4 bits, checkpointing": gathered_between_passes(folder, "zero3_4bit.json", True),
        "default": gathered_between_passes(folder, "zero3_bf16.json", False),
    }


def test_4_bit_weights_are_not_kept_from_forward_to_backward(tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny_llama().save_pretrained(tmp_path / "model")
    for found in run_ranks(2, tmp_path, both, tmp_path / "model"):
        assert found["4 bits"] == found["4 bits, checkpointing"] == [0, 0, 0]
        assert found["default"][-1] > 0  # DeepSpeed keeps them for the backward pass
