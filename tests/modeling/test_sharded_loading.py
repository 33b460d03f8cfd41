"""How much memory a rank needs while a base model loads."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_llama
from tests.ranks import run_ranks

ZERO3 = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1}
LARGEST = 1024 * 2816
ZERO2 = {**ZERO3, "zero_optimization": {"stage": 2}}


def write_model(folder: Path) -> int:
    """A model large beside the noise of a process's memory, of tensors small beside the model; its bytes in bf16."""
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 16}
    model = tiny_llama(**sizes).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(p.nbytes for p in model.parameters())


def own_memory() -> int:
    """Resident bytes that are this process's own; pages of mapped files can be dropped at any time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def peak_while_loading(folder: Path, config: dict, quantization: str | None) -> int:
    from transformers.integrations import HfDeepSpeedConfig

    from trex_ds.modeling.base import load_base_model
    from trex_ds.modeling.config import ModelConfig

    alive = HfDeepSpeedConfig(config)
    gc.collect()
    before = peak = own_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, own_memory())
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    model = load_base_model(ModelConfig(str(folder), quantization=quantization))
    done.set()
    thread.join()
    peak = max(peak, own_memory())  # the thread may have had no turn
    del model, alive
    gc.collect()
    return peak - before


def measure(folder: Path, small: Path, quantization: str | None) -> tuple[int, int]:
    from trex_ds.launching.process_group import start_distributed

    start_distributed(2)
    # glibc keeps freed memory of up to 32 MiB a piece for later; larger tensors, as of larger models, go back at once.
    ctypes.CDLL(None).mallopt(-3, 65536)
    peak_while_loading(small, ZERO3, quantization)  # imports take memory too
    return peak_while_loading(folder, ZERO3, quantization), peak_while_loading(folder, ZERO2, quantization)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("loading")


@pytest.fixture(scope="module")
def total(folder) -> int:
    tiny_llama().save_pretrained(folder / "small")
    return write_model(folder / "large")


def test_each_rank_needs_its_part_of_a_bfloat16_base_under_zero3(folder, total):
    for sharded, _ in run_ranks(2, folder, measure, folder / "large", folder / "small", None):
        assert 0.45 * total < sharded < 0.65 * total


def test_each_rank_needs_its_part_of_a_4_bit_base_under_zero3(folder, total):
    pytest.importorskip("bitsandbytes")
    packed = 0.26 * total
    first, second = run_ranks(2, folder, measure, folder / "large", folder / "small", "nf4")
    for sharded, whole in (first, second):
        assert 0.45 * packed < sharded < whole
        assert whole > 0.95 * packed
    assert second[0] < 0.75 * packed
    # Rank 0 quantizes one tensor at a time, of which bitsandbytes makes some copies on a CPU.
    assert first[0] < 0.75 * packed + 20 * LARGEST
