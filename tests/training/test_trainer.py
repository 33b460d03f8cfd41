"""The trainer's loss against the model's own."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from transformers import TrainingArguments

from tests.adapters.test_peft import perturb
from tests.conftest import tiny_llama
from trex_ds import TRexConfig
from trex_ds.data.collator import Collator
from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.training.callbacks import ReportCallback
from trex_ds.training.trainer import TRexTrainer

PROMPTS, ANSWERS = ([5, 6, 7, 8, 9], [11, 12], [20, 21, 22]), ([30, 31, 2], [40, 2], [50, 51, 52, 53, 2])


@pytest.fixture
def items():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": prompt + answer,
            "labels": [IGNORED_LABEL] * len(prompt) + answer,
            "intuition": torch.rand(32, generator=generator),
        }
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]


@pytest.fixture
def model():
    model = get_peft_model(tiny_llama(attn_implementation="sdpa").double(), TRexConfig())
    perturb(model)
    return model.double()


@pytest.fixture
def trainer(model, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", remove_unused_columns=False)
    return TRexTrainer(model=model, args=arguments)


def padded_on_the_right(items):
    batch = Collator(0)(items)
    shifts = [int(row.sum()) for row in batch["attention_mask"]]
    return {
        name: tensor
        if name == "intuition"
        else torch.stack([row.roll(shift) for row, shift in zip(tensor, shifts, strict=True)])
        for name, tensor in batch.items()
    }


def test_loss_and_gradients_equal_the_models_own_on_rows_padded_on_the_right(model, trainer, items):
    expected = model(**padded_on_the_right(items)).loss
    expected.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    num_items = sum(len(answer) for answer in ANSWERS)
    loss = trainer.compute_loss(model, Collator(0)(items), num_items_in_batch=num_items)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # its own is taken in float32
    assert wanted
    for name, p in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(p.grad, wanted[name], rtol=1e-4, atol=1e-7)


def test_logits_are_computed_for_answers_only(model, trainer, items):
    _, outputs = trainer.compute_loss(model, Collator(0)(items), return_outputs=True, num_items_in_batch=1)
    assert outputs.logits.shape == (sum(map(len, ANSWERS)), 96)


def test_intuition_stays_in_float32(trainer, items):
    batch = Collator(0)(items)
    prepared = trainer._prepare_inputs(dict(batch))
    assert prepared["intuition"].dtype == torch.float32
    assert torch.equal(prepared["intuition"], batch["intuition"])


def test_last_step_is_logged_even_between_two_intervals(model, items, tmp_path):
    logged = []
    options = {"use_cpu": True, "report_to": "none", "remove_unused_columns": False}
    arguments = TrainingArguments(output_dir=str(tmp_path), logging_steps=2, max_steps=3, **options)
    callback = ReportCallback(lambda metrics, step: logged.append((step, metrics["train/step_seconds"])))
    TRexTrainer(
        model=model.float(), args=arguments, train_dataset=items, data_collator=Collator(0), callbacks=[callback]
    ).train()
    assert [step for step, _ in logged] == [2, 3]
    assert all(seconds > 0 for _, seconds in logged)
