"""Packed examples have the loss and the gradients that they have one by one."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from transformers import TrainingArguments
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from tests.adapters.test_peft import perturb
from tests.conftest import tiny_llama
from tests.intuition.planted import planted_centroids
from trex_ds import TRexConfig
from trex_ds.data.collator import Collator, PackedCollator
from trex_ds.data.datasets import PackedSet
from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.data.packing import plan_rows
from trex_ds.methods.trex import IntuitionTransform
from trex_ds.training.trainer import TRexTrainer

# Prompt and answer of each example in tokens.
SIZES = [(5, 3), (2, 2), (3, 5), (1, 1), (7, 2), (4, 4), (2, 3)]
ROW_LENGTH = 16


def make_items(num_clusters: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    items = []
    for prompt, answer in SIZES:
        ids = torch.randint(3, 96, (prompt + answer,), generator=generator).tolist()
        labels = [IGNORED_LABEL] * prompt + ids[prompt:]
        items.append({"input_ids": ids, "labels": labels, "intuition": torch.rand(num_clusters, generator=generator)})
    return items


def make_model(transform: IntuitionTransform = "raw", attention: str = "sdpa", checkpointing: bool = False):
    config = TRexConfig(intuition_transform=transform, num_clusters=5 if transform == "mapped" else 32)
    config.attach_centroids(planted_centroids(config.num_clusters))
    model = get_peft_model(tiny_llama(attn_implementation=attention).double(), config)
    perturb(model)
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    return model.double().train()


def packed_rows(items: list[dict]) -> list[list[dict]]:
    packed = PackedSet(items, plan_rows([len(item["input_ids"]) for item in items], ROW_LENGTH, seed=0))
    rows = [packed[i] for i in range(len(packed))]
    assert len({len(row) for row in rows}) > 1  # so that intuition is padded too
    return rows


def segment_losses(model, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The loss of every segment, row by row; an own loop over tokens."""
    batch = dict(batch)
    labels, mask = batch.pop("labels"), batch.pop("attention_mask")
    logits = model(**batch, use_cache=False).logits.log_softmax(-1)
    losses = []
    for row in range(len(labels)):
        for segment in range(int(batch["segment_ids"][row].max()) + 1):
            own = (batch["segment_ids"][row] == segment) & mask[row].bool()
            places = own.nonzero().flatten().tolist()[1:]
            terms = [-logits[row, t - 1, labels[row, t]] for t in places if labels[row, t] != IGNORED_LABEL]
            losses.append(torch.stack(terms).sum())
    return losses


def loss_alone(model, item: dict) -> torch.Tensor:
    """transformers' own loss of one example, summed over its answer."""
    ids, labels = torch.tensor([item["input_ids"]]), torch.tensor([item["labels"]])
    logits = model(input_ids=ids, intuition=item["intuition"].unsqueeze(0), use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert any(name.endswith("trex_B.default") for name in found)
    return found


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("transform", ["raw", "centered", "mapped"])
def test_every_example_has_the_loss_and_all_have_the_gradients_of_examples_alone(
    transform, attention, checkpointing, one_row
):
    model = make_model(transform, attention, checkpointing)
    rows = packed_rows(make_items(5 if transform == "mapped" else 32))
    expected = [loss_alone(model, item) for row in rows for item in row]
    sum(expected).backward()
    wanted = gradients(model)
    losses = segment_losses(model, PackedCollator(0, one_row)(rows))
    sum(losses).backward()
    found = gradients(model)
    # Eager attention takes its softmax in float32; the gates' gradients are sums of large terms that cancel.
    loss_rtol, rtol = (1e-6, 1e-4) if attention == "eager" else (1e-9, 1e-9)
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected), rtol=loss_rtol, atol=0)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=rtol * value.abs().max().item())


@pytest.fixture
def trainer(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", remove_unused_columns=False)
    return TRexTrainer(model=make_model(), args=arguments)


@pytest.mark.parametrize("one_row", [False, True])
def test_trainers_loss_and_gradients_are_those_of_padded_rows(trainer, one_row):
    items, model = make_items(32), trainer.model
    num_items = sum(answer for _, answer in SIZES)
    padded = trainer.compute_loss(model, Collator(0)(items), num_items_in_batch=num_items)
    padded.backward()
    wanted = gradients(model)
    batch = PackedCollator(0, one_row)(packed_rows(items))
    packed, outputs = trainer.compute_loss(model, dict(batch), return_outputs=True, num_items_in_batch=num_items)
    packed.backward()
    assert packed.item() == pytest.approx(padded.item(), rel=1e-12)
    assert outputs.logits.shape == (num_items, 96)
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("shared", ["scores", "attention"])
def test_examples_that_share_scores_or_attention_have_other_losses(shared):
    """What the test above compares does change where one of the two separations is missing."""
    model = make_model()
    rows = packed_rows(make_items(32))
    batch = PackedCollator(0, one_row=False)(rows)
    right = torch.stack(segment_losses(model, batch))
    if shared == "scores":
        batch["intuition"] = batch["intuition"][:, :1].expand_as(batch["intuition"])
    else:
        batch["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
    wrong = torch.stack(segment_losses(model, batch))
    first = torch.tensor([i == 0 for row in rows for i in range(len(row))])
    torch.testing.assert_close(wrong[first], right[first])
    assert ((wrong - right)[~first].abs() > 1e-4).all()


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("changed", ["input_ids", "intuition"])
def test_a_changed_example_changes_no_others_loss(changed, one_row):
    model = make_model()
    rows = packed_rows(make_items(32))
    collator = PackedCollator(0, one_row)
    before = torch.stack(segment_losses(model, collator(rows)))
    row, place = next((i, 0) for i, row in enumerate(rows) if len(row) > 1)
    item = rows[row][place]
    new = 1 - item["intuition"] if changed == "intuition" else [95 - token for token in item["input_ids"]]
    rows[row][place] = {**item, changed: new}
    after = torch.stack(segment_losses(model, collator(rows)))
    same = torch.ones(len(SIZES), dtype=torch.bool)
    same[sum(map(len, rows[:row])) + place] = False
    torch.testing.assert_close(after[same], before[same], rtol=0, atol=0)
    assert (after - before)[~same].abs() > 1e-4


def test_tokens_are_counted_without_padding(trainer):
    items = make_items(32)
    batch = PackedCollator(0, one_row=False)(packed_rows(items))
    trainer.training_step(trainer.model, dict(batch), num_items_in_batch=torch.tensor(20))
    padded, real, supervised = trainer._token_counts.tolist()
    assert padded == batch["input_ids"].numel()
    assert (real, supervised) == (sum(map(sum, SIZES)), sum(answer for _, answer in SIZES))


def test_flash_attention_finds_the_examples_in_one_row():
    rows = packed_rows(make_items(32))
    batch = PackedCollator(0, one_row=True)(rows)
    (starts, _), (longest, _) = prepare_fa_kwargs_from_position_ids(batch["position_ids"])
    lengths = [len(item["input_ids"]) for row in rows for item in row]
    assert starts.diff().tolist() == lengths
    assert longest == max(lengths)
