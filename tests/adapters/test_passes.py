"""What routers leave behind: losses and loads of passes, with checkpointing, several passes and copies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import get_peft_model

from tests.adapters.test_peft import IDS, adapted, perturb
from tests.conftest import tiny_llama
from trex_ds.adapters.balance import BalancedRouter
from trex_ds.adapters.flylora import FlyLoraConfig
from trex_ds.adapters.sira import SiraConfig
from trex_ds.adapters.smora import SmoraConfig

BALANCED: list[Any] = [
    SmoraConfig(r=6, top_k=2, bias_update_rate=0.5),
    FlyLoraConfig(r=6, top_k=2, bias_update_rate=0.5),
]
WITH_IDS = pytest.mark.parametrize("config", BALANCED, ids=[c.peft_type.value for c in BALANCED])


def made(config, checkpointing=False):
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama().double(), copy.deepcopy(config))
    perturb(model)
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    return model.train()


def loss(model, ids=IDS):
    return model(input_ids=ids, labels=ids).loss


def biases(model):
    return [m.bias.clone() for m in model.modules() if isinstance(m, BalancedRouter)]


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@WITH_IDS
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_passes_before_a_backward_have_the_gradients_of_each_alone(config, checkpointing):
    model = made(config, checkpointing)
    for ids in (IDS, IDS.flip(0) + 1):
        loss(model, ids).backward()
    expected = gradients(model)
    model.zero_grad()
    first, second = loss(model), loss(model, IDS.flip(0) + 1)
    (first + second).backward()
    torch.testing.assert_close(gradients(model), expected, rtol=1e-9, atol=1e-12)


@WITH_IDS
def test_biases_move_when_told_by_training_passes_only(config):
    model = made(config)
    before = biases(model)
    with torch.no_grad():
        loss(model)
    model.eval()
    loss(model)
    model.base_model.update_balance()
    assert all(torch.equal(a, b) for a, b in zip(before, biases(model), strict=True))
    loss(model.train()).backward()
    model.base_model.update_balance()
    moved = biases(model)
    assert all(not torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    model.base_model.update_balance()  # a load counts once
    assert all(torch.equal(a, b) for a, b in zip(moved, biases(model), strict=True))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_balance_loss_is_taken_once_and_leaves_nothing_behind(checkpointing):
    model = made(SiraConfig(num_experts=4, r=2, top_k=2), checkpointing)
    total = loss(model)
    auxiliary = model.base_model.auxiliary_loss()
    assert auxiliary.item() > 0
    (total + auxiliary.squeeze()).backward()
    assert model.base_model.auxiliary_loss() is None  # nor from the layers that ran again
    copy.deepcopy(model)
    with torch.no_grad():
        loss(model)
    assert model.base_model.auxiliary_loss() is None


def test_shared_router_of_an_adapter_that_was_deleted_is_not_used_again(base):
    model = adapted(base, router="shared")
    counts = []
    for _ in range(2):
        model.add_adapter("b", copy.deepcopy(model.peft_config["default"]))
        counts.append(sum(p.numel() for n, p in model.named_parameters() if "b" in n.split(".")))
        model.delete_adapter("b")
    assert counts[0] == counts[1]


def test_a_trained_bias_survives_a_change_of_type_exactly():
    router = SmoraConfig(r=4, top_k=2).make_router(8)
    router.bias = torch.tensor([0.1234567, -0.3, 0.001, 0.0])
    before = router.bias.clone()
    assert torch.equal(router.to(torch.bfloat16).bias, before)
