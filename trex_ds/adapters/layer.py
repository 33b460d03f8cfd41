"""The adapted linear: a frozen base layer plus the routed experts of each adapter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from trex_ds.adapters.mixing import routed_update, routed_update_reference
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Router
from trex_ds.adapters.side_input import SideInput

NO_INTUITION = (
    "an active T-REX adapter needs intuition=(batch, num_clusters) scores: compute them with "
    "trex_ds.Intuition.from_adapter(folder)(prompts), or switch the adapter off with model.disable_adapter()"
)
CANNOT_MERGE = (
    "a routed adapter cannot be merged into the base weights: its update depends on every token, and for T-REX on the "
    "sample's intuition. Use the adapted model as it is, or model.unload() to get the base model back."
)


class RoutedLinear(nn.Module, BaseTunerLayer):
    """y = W0 x + B (G(x)^T A x), one set of parameters per adapter name; the router makes G with all its scales.

    Args:
        base_layer: the frozen linear, in float or quantised; only its forward and its
            in_features / out_features are used, so its weight may be sharded away.
        side_input: where the current pass's intuition scores are found, and what routers say of it is left.
    """

    adapter_layer_names = ("trex_A", "trex_B", "trex_router")
    other_param_names = ("dropout",)

    def __init__(self, base_layer: nn.Linear, side_input: SideInput):
        super().__init__()
        self.base_layer = base_layer
        self.in_features = base_layer.in_features
        self.out_features = base_layer.out_features
        self.side_input = side_input
        self.trex_A = nn.ParameterDict()
        self.trex_B = nn.ParameterDict()
        self.trex_router = nn.ModuleDict()
        self.dropout: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(
        self, adapter_name: str, config: RoutedConfig, router: Router | None = None, inference_mode: bool = False
    ) -> None:
        """Add an adapter, which starts as the base layer because B is zero; `router` is one that config made."""
        self.trex_A[adapter_name] = nn.Parameter(config.draw_in(self.in_features))
        self.trex_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, config.num_out))
        self.trex_router[adapter_name] = config.make_router(self.in_features) if router is None else router
        self.dropout[adapter_name] = config.dropout
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """PEFT's, but that an A which its method does not train stays frozen."""
        super().set_adapter(adapter_names, inference_mode=inference_mode)
        self._freeze_drawn()

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """PEFT's, but that an A which its method does not train stays frozen."""
        super().set_requires_grad(adapter_names, requires_grad)
        self._freeze_drawn()

    def _freeze_drawn(self) -> None:
        for name, router in self.trex_router.items():
            if not router.trains_in:
                self.trex_A[name].requires_grad_(False)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(batch, seq, in_features) -> (batch, seq, out_features).

        Raises:
            ValueError: if an active adapter takes intuition scores and the pass has none, or x is not 3-dimensional.
        """
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        self._register_in_zero3()
        for adapter_name in self.active_adapters:
            if adapter_name in self.trex_A:
                y = self._update(adapter_name, y, x)
        return y

    def adapter_tensors(self) -> list[Tensor]:
        """Every parameter that the adapters of this layer read, once each."""
        found = [*self.trex_A.values(), *self.trex_B.values()]
        return found + [tensor for router in self.trex_router.values() for tensor in router.tensors()]

    def _register_in_zero3(self) -> None:
        """Have DeepSpeed gather the adapters' parameters whenever this module runs.

        They lie in containers, which have no forward of their own for ZeRO-3 to gather them at.
        (Its other way, a leaf module gathered as a whole, loses gradients where the module's input
        needs none, as in the first layer.)
        """
        parameters = self.adapter_tensors()
        if not hasattr(parameters[0], "ds_id") or id(parameters[0]) in getattr(self, "_external_params", {}):
            return
        import deepspeed

        for parameter in parameters:
            deepspeed.zero.register_external_parameter(self, parameter)
        parameters[0].all_gather(param_list=parameters)  # too late for this pass's hook

    def _update(self, adapter_name: str, y: Tensor, x: Tensor) -> Tensor:
        side_input = self.side_input.current
        if side_input is None:
            raise ValueError(NO_INTUITION)
        if x.dim() != 3:
            raise ValueError(
                f"the adapter takes linears whose input is (batch, seq, features), this one got {tuple(x.shape)}; "
                "leave it out with exclude_modules"
            )
        router: Router = self.trex_router[adapter_name]
        scores = side_input.rows(adapter_name, *x.shape[:2])
        # Under autocast x may still be float32 while y is not. The products below choose their own
        # types, so autocast must not choose again in the forward and not in the backward.
        with _without_autocast(x.device.type):
            x = x.to(y.dtype)
            A, B, token_rows = self.trex_A[adapter_name], self.trex_B[adapter_name], side_input.token_rows
            dropout = self.dropout[adapter_name]
            if self.training and dropout > 0.0:
                # Experts and router read different inputs here, so they cannot share one product.
                expert_input = nn.functional.dropout(x, dropout)
                updated = routed_update_reference(y, x, A, B, router, scores, token_rows, expert_input)
            else:
                updated = routed_update(y, x, A, B, router, scores, token_rows)
        self.side_input.report(router, updated.loss, updated.load)
        return updated.y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refused: see `RoutedModel.merge_and_unload`."""
        raise NotImplementedError(CANNOT_MERGE)

    def unmerge(self) -> None:
        """Refused: see `RoutedModel.merge_and_unload`."""
        raise NotImplementedError(CANNOT_MERGE)

    def __repr__(self) -> str:
        return "trex." + super().__repr__()


def _without_autocast(device_type: str) -> AbstractContextManager:
    # The meta device, where the planner runs the layer, has no autocast to switch off.
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
