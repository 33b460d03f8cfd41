"""What this project can do with a family of models: one function a column of the table in docs/models.md.

Each compares with an independent result, and returns what the table says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import TrainingArguments

from tests.adapters.test_peft import perturb
from tests.families.models import family_config, family_model
from trex_ds import TRexConfig
from trex_ds.adapters.loading import load_adapted
from trex_ds.adapters.on_meta import adapted_on_meta
from trex_ds.adapters.targets import coverage
from trex_ds.data.collator import Collator, PackedCollator
from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.modeling.base import load_base_model, supported_attention
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.rows import rows_of
from trex_ds.training.trainer import TRexTrainer

SIZES = [(5, 9), (2, 8), (9, 5), (4, 4)]
"""Prompt and answer of each example in tokens; longer than the models' windows."""
EXCLUDED = {
    "falcon_h1": ["out_proj"],
    "jamba": ["x_proj", "dt_proj", "out_proj"],
    "mamba": ["x_proj", "dt_proj", "out_proj"],
    "mamba2": ["out_proj"],
}
"""What cannot be adapted, since it is not called: refused by its names."""

MERGED = ("deepseek_v3", "gpt_neox", "jamba", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next")
"""Families whose saved tensors transformers renames or merges as it loads them."""

FLOAT32 = (*(set(MERGED) - {"gpt_neox"}), "gemma2", "gpt_oss", "xglm")
"""Experts' products, tables of positions and soft caps are not computed in float64."""


def adapter(name: str) -> TRexConfig:
    return TRexConfig(exclude_modules=EXCLUDED.get(name))


def adapted(name: str, attention: str) -> Any:
    model = get_peft_model(family_model(name, attention), adapter(name), autocast_adapter_dtype=False)
    perturb(model)
    return model


def in_double(name: str, model: Any) -> Any:
    """The model in float64, which gates' gradients need to be compared, where its architecture can compute in it."""
    return model if name in FLOAT32 else model.double()


def attention_of(name: str, folder: Path) -> str:
    family_config(name).save_pretrained(folder)
    return supported_attention(ModelConfig(name=str(folder)))


def items() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for prompt, answer in SIZES:
        ids = torch.randint(3, 96, (prompt + answer,), generator=generator).tolist()
        labels = [IGNORED_LABEL] * prompt + ids[prompt:]
        found.append({"input_ids": ids, "labels": labels, "intuition": torch.rand(32, generator=generator)})
    return found


def own_loss(model: Any, item: dict[str, Any]) -> torch.Tensor:
    """The loss that transformers computes of one example by itself, times its tokens."""
    ids, labels = torch.tensor([item["input_ids"]]), torch.tensor([item["labels"]])
    arguments = {"intuition": item["intuition"].unsqueeze(0)} if hasattr(model, "peft_config") else {}
    loss = model(input_ids=ids, labels=labels, use_cache=False, **arguments).loss
    return loss * sum(label != IGNORED_LABEL for label in item["labels"][1:])


def trains(name: str, attention: str, folder: Path) -> str:
    """Padded rows have the losses and gradients of examples alone, and a step along the gradient lowers the loss."""
    model = in_double(name, adapted(name, attention)).train()
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False)
    trainer = TRexTrainer(model=model, args=arguments)
    examples, rtol = items(), 1e-3 if model.dtype is torch.float64 else 2e-2
    expected = torch.stack([own_loss(model, item) for item in examples])
    expected.sum().backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for item, alone in zip(examples, expected, strict=True):
        found = trainer.compute_loss(model, Collator(0)([item, examples[0]]), num_items_in_batch=1)
        torch.testing.assert_close(found, alone + expected[0], rtol=1e-4, atol=1e-4, check_dtype=False)
    loss = trainer.compute_loss(model, Collator(0)(examples), num_items_in_batch=1)
    loss.backward()
    for n, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, wanted[n], rtol=rtol, atol=rtol * wanted[n].abs().max().item() + 1e-5)
    with torch.no_grad():
        step = 1e-5 * loss / sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None)
        for p in model.parameters():
            if p.grad is not None:
                p -= step * p.grad
        assert trainer.compute_loss(model, Collator(0)(examples), num_items_in_batch=1) < loss
    return "yes"


def packs(name: str, attention: str, folder: Path) -> str:
    """A packed row has the loss of its examples alone, in transformers' own computation of it."""
    form = rows_of(family_config(name), attention).packed
    model = in_double(name, adapted(name, attention)).train()
    if form is None:
        return "no"
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False)
    trainer = TRexTrainer(model=model, args=arguments)
    examples = items()
    with torch.no_grad():
        alone = [own_loss(model, item) for item in examples]
        for rows in ([[0, 1]], [[2, 0, 3]], [[1, 2], [3, 0]]):
            batch = PackedCollator(0, one_row=False)([[examples[i] for i in row] for row in rows])
            found = trainer.compute_loss(model, batch, num_items_in_batch=1)
            expected = sum(alone[i] for row in rows for i in row)
            torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-4, atol=1e-4, check_dtype=False)
    return "positions" if form.mask == "none" else "mask by layer" if form.by_layer_type else "mask"


def four_bits(name: str, attention: Any, folder: Path) -> str:
    """A model in 4 bits has the logits of the float model with the weights that its 4 bits stand for."""
    from trex_ds.modeling.quantized import Linear4bit

    family_model(name).save_pretrained(folder)
    config = ModelConfig(name=str(folder), dtype="float32", quantization="nf4", attention=attention)
    if name in MERGED:
        with pytest.raises(ValueError, match=r"use model\.quantization: null"):
            load_base_model(config)
        return "no"
    small = load_base_model(config)
    float_model = family_model(name, attention).eval()
    with torch.no_grad():
        for path, module in small.named_modules():
            if isinstance(module, Linear4bit):
                weight = float_model.get_submodule(path).weight
                values = module.dequantized(torch.float32)
                weight.copy_(values.t() if module.transposed else values)
        ids = torch.tensor([items()[0]["input_ids"]])
        torch.testing.assert_close(
            small(input_ids=ids, use_cache=False).logits,
            float_model(input_ids=ids, use_cache=False).logits,
            rtol=1e-3,
            atol=1e-3,
        )
    return "yes"


def generates(name: str, attention: str, folder: Path) -> str:
    """Answers of prompts of different lengths in one batch are those of each prompt by itself, token by token."""
    from trex_ds.evaluation.batches import length_batches

    model = adapted(name, attention).eval()
    prompts = [item["input_ids"][:n] for item, n in zip(items(), (3, 9, 5, 9), strict=True)]
    scores = [item["intuition"] for item in items()]
    together: dict[int, list[int]] = {}
    for group in length_batches(model, prompts, len(prompts)):
        batch = Collator(0)([{"input_ids": prompts[i], "intuition": scores[i]} for i in group])
        out = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
        together |= {i: out[row, -4:].tolist() for row, i in enumerate(group)}
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            for _ in range(4):
                logits = model(input_ids=ids, intuition=scores[i][None], use_cache=False).logits
                ids = torch.cat((ids, logits[:, -1:].argmax(-1)), 1)
        assert together[i] == ids[0, -4:].tolist()
    return "yes"


def saves(name: str, attention: str, folder: Path) -> str:
    """A loaded adapter gives the logits of the saved one."""
    model = adapted(name, attention).eval()
    model.save_pretrained(folder)
    loaded = load_adapted(family_model(name, attention), folder)
    ids, c = torch.tensor([items()[0]["input_ids"]]), items()[0]["intuition"][None]
    with torch.no_grad():
        expected = model(input_ids=ids, intuition=c, use_cache=False).logits
        torch.testing.assert_close(loaded(input_ids=ids, intuition=c, use_cache=False).logits, expected, rtol=0, atol=0)
    return "yes"


def adapts(name: str, attention: str, folder: Path) -> str:
    """The adapted linears, and their share of the tiny model's matrices, counted from the model itself."""
    model, base = adapted_on_meta(family_config(name), adapter(name))
    found = coverage(model, base)
    trained = {
        n.split(".trex_B")[0].removeprefix("base_model.model.") for n, _ in model.named_parameters() if "trex_B" in n
    }
    assert {n.removesuffix(".weight") for n in found.adapted} == trained
    leaves = list(dict.fromkeys(n.rsplit(".", 1)[-1] for n in sorted(trained)))
    return ", ".join(leaves) + ("; not the experts" if found.experts_left_out else "")


CELLS = {
    "attention": lambda name, attention, folder: attention,
    "trains": trains,
    "packs": packs,
    "4-bit": four_bits,
    "generates": generates,
    "saves and loads": saves,
    "adapts": adapts,
}
