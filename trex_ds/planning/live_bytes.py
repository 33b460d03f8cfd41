"""Counts what torch allocates while code runs, tensor by tensor: exact, on any device, the meta device too."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class LiveBytes(TorchDispatchMode):
    """Count within the block: bytes of living storages made in it, their peak, and operations of matrix products.

    What lived before is not counted, nor are views of it. Allocations inside a kernel are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        """Bytes alive now."""
        self.peak = 0
        """The most bytes alive at once since the last `take_peak`."""
        self.flops = 0
        """Floating-point operations of matrix products (2 for each multiplication)."""
        self._known: dict[int, weakref.ref] = {}

    def __enter__(self) -> LiveBytes:
        for thing in gc.get_objects():
            if issubclass(type(thing), torch.Tensor):
                self._know(thing, counted=False)
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._know(tensor, counted=True)
        return out

    def take_peak(self) -> int:
        """The peak since this was last called."""
        peak, self.peak = self.peak, self.live
        return peak

    def _know(self, tensor: torch.Tensor, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0
        # The storage's Python object lives as long as the storage itself.
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        self.live -= size
        del self._known[key]
