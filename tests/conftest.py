"""Shared by all tests: no hub, one thread, and a tiny random Llama."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import multiprocessing

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiers import starts_processes

torch.set_num_threads(1)

# Tests with several ranks fork them from one process that has done the imports: those take half a minute.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["torch", "transformers", "deepspeed", "trex_ds.training.job"]
)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses among the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes, which `make test-fast` leaves out."""
    for item in items:
        if isinstance(item, pytest.Function) and starts_processes(item):
            item.add_marker("ranks")


def tiny_llama(seed: int = 0, **overrides) -> LlamaForCausalLM:
    """Two layers of width 32 with grouped heads; eager attention so that float64 works everywhere."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "attn_implementation": "eager",
    }
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **overrides}))


@pytest.fixture
def base() -> LlamaForCausalLM:
    return tiny_llama()
