"""Every method through the same tests; docs/methods.md says what they show, and is compared with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.adapters.methods import METHODS, adapted, section, side_inputs, trained
from tests.conftest import tiny_llama
from tests.ranks import run_ranks
from trex_ds.adapters.loading import load_adapted
from trex_ds.methods.limits import CHECKPOINTING, FOUR_BITS, PACKING, ZERO, ZERO3
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
IDS = torch.randint(3, 90, (2, 7), generator=torch.Generator().manual_seed(0))
# Their start is no identity: fresh embeddings in front.
CHANGED_AT_THE_START = {"prompt_tuning"}


def without(*limits: str) -> list[str]:
    """The methods that refuse none of these."""
    return [method for method in METHODS if not set(limits) & section(method).refuses.keys()]


def logits(model: Any, method: str, ids: torch.Tensor = IDS, **more: Any) -> torch.Tensor:
    """Logits of the tokens in `ids`, (batch, seq, vocabulary)."""
    with torch.no_grad():
        return model(input_ids=ids, **side_inputs(method, len(ids)), **more).logits[:, -ids.shape[1] :]


def gradients(model: Any, method: str, ids: torch.Tensor = IDS) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=ids, labels=ids, **side_inputs(method, len(ids))).loss.backward()
    return {name: p.grad.clone() for name, p in trained(model).items() if p.grad is not None}


@pytest.mark.parametrize("method", METHODS)
def test_step_zero_is_the_base_and_so_is_a_disabled_adapter(method):
    expected = logits(tiny_llama().eval(), "lora")
    fresh = logits(adapted(method, tiny_llama(), drawn=False), method)
    if method in CHANGED_AT_THE_START:
        assert not torch.allclose(fresh, expected, atol=1e-3)
    else:
        torch.testing.assert_close(fresh, expected)
    model = adapted(method, tiny_llama())
    assert (logits(model, method) - expected).abs().max() > 1e-4
    with model.disable_adapter():
        torch.testing.assert_close(logits(model, method), expected)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_every_trained_tensor_in_both_types(method):
    for dtype in (torch.float32, torch.bfloat16):
        model = adapted(method, tiny_llama().to(dtype))
        found = gradients(model, method)
        assert found
        for name, gradient in found.items():
            assert gradient.isfinite().all(), name
            assert gradient.abs().max() > 0, name
        assert all(parameter.dtype == dtype for parameter in trained(model).values())


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_adapter_gives_the_same_logits(method, tmp_path):
    model = adapted(method, tiny_llama())
    model.save_pretrained(str(tmp_path))
    torch.manual_seed(99)  # what is drawn and not saved would differ
    loaded = load_adapted(tiny_llama(), tmp_path).eval()
    torch.testing.assert_close(logits(loaded, method), logits(model, method), rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_generation_with_a_cache_and_padding_is_the_argmax_of_whole_passes(method):
    model = adapted(method, tiny_llama())
    short, pad = IDS[1:, 3:], 3
    ids = torch.cat([IDS[:1], torch.cat([torch.zeros(1, pad, dtype=torch.int64), short], 1)])
    mask = torch.ones_like(ids)
    mask[1, :pad] = 0
    settings = {"max_new_tokens": 4, "do_sample": False, "use_cache": True, "eos_token_id": None, "pad_token_id": 0}
    out = model.generate(input_ids=ids, attention_mask=mask, **side_inputs(method, 2), **settings)
    for row, own in enumerate((IDS[:1], short)):
        sides = {name: value[row : row + 1] for name, value in side_inputs(method, 2).items()}
        for _ in range(4):
            with torch.no_grad():
                new = model(input_ids=own, use_cache=False, **sides).logits[:, -1].argmax(-1)
            own = torch.cat([own, new.unsqueeze(1)], 1)
        assert out[row, -4:].tolist() == own[0, -4:].tolist()


@pytest.mark.parametrize("method", without(PACKING))
def test_packed_rows_have_the_logits_of_each_alone(method):
    from trex_ds.adapters.model import RoutedModel
    from trex_ds.adapters.passes import isolated

    model = adapted(method, tiny_llama())
    expected = logits(model, method)
    positions = torch.arange(7).repeat(2).unsqueeze(0)
    more = {"position_ids": positions}
    if isinstance(model.base_model, RoutedModel):
        more["segment_ids"] = positions.new_tensor([[0] * 7 + [1] * 7])
        more |= {name: value.unsqueeze(0) for name, value in side_inputs(method, 2).items()}
    else:
        more = isolated(more, model.get_base_model())
    with torch.no_grad():
        packed = model(input_ids=IDS.view(1, -1), **more).logits
    torch.testing.assert_close(packed.view_as(expected), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", without(CHECKPOINTING))
def test_gradient_checkpointing_changes_nothing(method):
    # Two models, because a balanced router does not stay the same from pass to pass.
    plain, model = (adapted(method, tiny_llama()).train() for _ in range(2))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    expected = gradients(plain, method)
    for name, gradient in gradients(model, method).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    tiny_llama().save_pretrained(folder / "model")
    return folder


def load(folder: Path, quantization: str | None) -> Any:
    return load_base_model(
        ModelConfig(str(folder / "model"), dtype="float32", quantization=quantization, attention="eager")
    )


@pytest.mark.parametrize("method", without(FOUR_BITS))
def test_4_bits_are_the_same_as_their_float_values(method, folder):
    """The method's update on a base in 4 bits, and its gradients, against a base with the weights unpacked."""
    pytest.importorskip("bitsandbytes")
    packed, plain = load(folder, "nf4"), load(folder, None)
    for name, module in packed.named_modules():
        if hasattr(module, "dequantized"):
            plain.get_submodule(name).weight.data = module.dequantized(torch.float32)
    models = [adapted(method, base) for base in (packed, plain)]
    found, expected = (gradients(model, method) for model in models)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def sharded_gradients(folder: Path, methods: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    import deepspeed
    from deepspeed.utils import safe_get_full_grad
    from transformers.integrations import HfDeepSpeedConfig

    from tests.training.jobs import ZERO3 as SHARDED
    from trex_ds.launching.process_group import start_distributed

    start_distributed(2)
    rank = torch.distributed.get_rank()
    config = {
        "bf16": {"enabled": False},
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": SHARDED["zero_optimization"],
    }
    found = {}
    for method in methods:
        alive = HfDeepSpeedConfig(config)  # while it lives, models are sharded as they load
        model = adapted(method, load(folder, None))
        del alive
        named = trained(model)
        optimizer = torch.optim.AdamW(named.values(), lr=0.0)
        engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
        sides = {name: value[rank : rank + 1] for name, value in side_inputs(method, 2).items()}
        own = IDS[rank : rank + 1]
        engine.backward(engine(input_ids=own, labels=own, **sides).loss)
        found[method] = {name: safe_get_full_grad(parameter).clone() for name, parameter in named.items()}
        engine.destroy()
    return found


@pytest.fixture(scope="module")
def sharded(folder) -> dict[str, dict[str, torch.Tensor]]:
    return run_ranks(2, folder, sharded_gradients, folder, without(ZERO, ZERO3))[0]


@pytest.mark.parametrize("method", without(ZERO, ZERO3))
def test_two_ranks_under_zero_3_have_the_gradients_of_one_process(method, sharded, folder):
    expected = gradients(adapted(method, load(folder, None)), method)
    assert sharded[method].keys() == expected.keys()
    for name, gradient in sharded[method].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6, msg=name)


COLUMNS = {"4-bit": {FOUR_BITS}, "ZeRO-3": {ZERO, ZERO3}, "packing": {PACKING}, "generation": set()}


def table() -> dict[str, dict[str, str]]:
    """The table of docs/methods.md: by method, by column."""
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in rows}


def test_docs_say_tested_where_these_tests_ran_and_refused_where_recipes_are():
    documented = table()
    assert documented.keys() - {"adapters"} == set(METHODS)
    for method in METHODS:
        for column, limits in COLUMNS.items():
            refused = limits & section(method).refuses.keys()
            expected = r"refused \(.+\)" if refused else "tested"
            assert re.fullmatch(expected, documented[method][column]), (method, column)
