from __future__ import annotations

import pytest
import torch

from trex_ds.planning.live_bytes import LiveBytes


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_living_storages_are_counted_once_and_until_they_go(device):
    before = torch.empty(1000, device=device)
    with LiveBytes() as tracker:
        old_view = before[:10]
        a = torch.empty(4, 8, device=device)
        view = a.t()[2:]
        assert (tracker.live, tracker.peak) == (128, 128)
        b = a + 1
        del a
        assert tracker.live == 256  # the view keeps it
        del view
        assert (tracker.live, tracker.peak) == (128, 256)
        assert (tracker.take_peak(), tracker.take_peak()) == (256, 128)
    assert len(old_view) == 10
    assert len(b) == 4


def test_what_autograd_keeps_is_alive_until_its_backward():
    x = torch.ones(5, 5, requires_grad=True)
    with LiveBytes() as tracker:
        loss = x.exp().sum()
        assert tracker.live == 104  # exp keeps its result
        loss.backward()
        del loss
        assert tracker.live == x.grad.nbytes


def test_products_are_counted_as_two_operations_a_multiplication():
    x, w = torch.ones(3, 4), torch.ones(4, 5, requires_grad=True)
    with LiveBytes() as tracker:
        (x @ w).sum().backward()
    assert tracker.flops == 2 * 3 * 4 * 5 * 2
