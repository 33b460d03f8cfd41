"""The side input: how a sample's intuition scores reach every adapted layer of a forward pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trex_ds.adapters.passes import Pass
from trex_ds.adapters.router import Router


class SideInput(threading.local):
    """The one object that the model shares with its layers; holds the current `Pass` of the calling thread.

    Each thread has its own, so that calls in several threads do not mix. A pass stays until the thread's next
    forward pass replaces it. Activation checkpointing runs layers again during backward, maybe in a thread of
    autograd's: `again` brings their pass back there. The other way round, routers leave here what they say of
    the pass.
    """

    def __init__(self) -> None:
        self.current: Pass | None = None
        self.generation: Pass | None = None
        """The pass of the running `generate`, with one row a sample."""
        self.adapter_names: tuple[str, ...] | None = None
        """Adapter names of the current call, if it is a mixed batch."""
        self.losses: dict[Router, Tensor] = {}
        self.loads: dict[Router, Tensor] = {}
        self._runs_again = False

    def __reduce__(self) -> tuple[type[SideInput], tuple[()]]:
        # A copy of the model, or one that is sent to another process, is in no call.
        return SideInput, ()

    def report(self, router: Router, loss: Tensor | None, load: Tensor | None) -> None:
        """Keep what a router says of a training pass."""
        # What a layer says when it runs again in backward would keep all of the block's activations alive.
        if self._runs_again or not (router.training and torch.is_grad_enabled()):
            return
        if loss is not None:
            self.losses[router] = loss
        if load is not None:
            self.loads[router] = load

    def take_loads(self) -> dict[Router, Tensor]:
        """The loads since they were last taken."""
        taken, self.loads = self.loads, {}
        return taken

    @contextmanager
    def generating(self, passed: Pass | None) -> Iterator[None]:
        """Let every forward pass of the block be a step of one `generate`, then bring back what was there."""
        previous = self.current, self.generation
        self.generation = passed
        try:
            yield
        finally:
            self.current, self.generation = previous

    @contextmanager
    def mixed(self, adapter_names: tuple[str, ...] | None) -> Iterator[None]:
        """Let the rows of the block's passes have these adapters."""
        previous, self.adapter_names = self.adapter_names, adapter_names
        try:
            yield
        finally:
            self.adapter_names = previous

    @contextmanager
    def again(self, passed: Pass | None) -> Iterator[None]:
        """Make `passed` current for layers that run again in backward."""
        previous, self.current, self._runs_again = self.current, passed, True
        try:
            yield
        finally:
            self.current, self._runs_again = previous, False
