"""Prompt tuning's answers do not depend on how a row is padded."""

from __future__ import annotations

import pytest
import torch

from tests.adapters.methods import SMALL, adapted
from tests.conftest import tiny_llama

VIRTUAL = SMALL["prompt_tuning"]["num_virtual_tokens"]
TEXTS = torch.randint(3, 90, (2, 6), generator=torch.Generator().manual_seed(0))
LENGTHS = (6, 4)
IGNORED = -100


@pytest.fixture(scope="module")
def model():
    # Eager attention in float64 has no numbers for rows that begin with padding, with an adapter or without.
    return adapted("prompt_tuning", tiny_llama(attn_implementation="sdpa")).double()


def loss_and_gradient(model, ids, mask, labels):
    model.zero_grad()
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    return loss.detach(), model.prompt_encoder["default"].embedding.weight.grad.clone()


@pytest.mark.parametrize("before", [0, 2, 5], ids=lambda number: f"{number} before")
@pytest.mark.parametrize("after", [0, 1, 4], ids=lambda number: f"{number} after")
def test_logits_loss_and_gradient_are_those_of_each_row_alone(model, before, after):
    """The second row is shorter by two: the first of its places more is before its text, the other after."""
    width = before + max(LENGTHS) + after
    ids, mask, labels = torch.zeros(2, width).long(), torch.zeros(2, width).long(), torch.full((2, width), IGNORED)
    starts = (before, before + 1)
    for row, (start, length) in enumerate(zip(starts, LENGTHS, strict=True)):
        ids[row, start : start + length] = labels[row, start : start + length] = TEXTS[row, :length]
        mask[row, start : start + length] = 1
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).logits
    for row, (start, length) in enumerate(zip(starts, LENGTHS, strict=True)):
        own = TEXTS[row : row + 1, :length]
        with torch.no_grad():
            expected = model(input_ids=own).logits[0, VIRTUAL:]
        found = padded[row, VIRTUAL + start : VIRTUAL + start + length]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        alone = loss_and_gradient(model, own, torch.ones_like(own), own)
        in_batch = loss_and_gradient(model, ids[row : row + 1], mask[row : row + 1], labels[row : row + 1])
        torch.testing.assert_close(in_batch, alone, rtol=1e-5, atol=1e-8)  # transformers' loss is in float32


def test_padding_changes_nothing_where_the_adapter_is_disabled(model):
    ids = torch.cat([torch.zeros(1, 2).long(), TEXTS[:1], torch.zeros(1, 2).long()], 1)
    with torch.no_grad(), model.disable_adapter():
        padded = model(input_ids=ids, attention_mask=(ids > 0).long()).logits[:, 2:-2]
        # The base model counts positions from the padding on, whose sines are in float32.
        torch.testing.assert_close(padded, model(input_ids=TEXTS[:1]).logits, rtol=0, atol=1e-8)
