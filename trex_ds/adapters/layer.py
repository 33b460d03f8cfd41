"""The adapted linear: a frozen base layer plus the routed rank-one experts of each adapter."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from trex_ds.adapters.config import TRexConfig
from trex_ds.adapters.mixing import RoutingScales, routed_update, routed_update_reference
from trex_ds.adapters.side_input import SideInput

NO_INTUITION = (
    "an active T-REX adapter needs intuition=(batch, num_clusters) scores: compute them with "
    "trex_ds.Intuition.from_adapter(folder)(prompts), or switch the adapter off with model.disable_adapter()"
)


class TRexLinear(nn.Module, BaseTunerLayer):
    """y = W0 x + sigmoid(k * gamma) * B (G(x)^T A x), one set of parameters per adapter name.

    Args:
        base_layer: the frozen linear, in float or quantised; only its forward and its
            in_features / out_features are used, so its weight may be sharded away.
        side_input: where the current pass's intuition scores are found.
    """

    adapter_layer_names = ("trex_A", "trex_B", "trex_router", "trex_omega", "trex_gamma", "trex_mapper")
    other_param_names = ("scales", "dropout")

    def __init__(self, base_layer: nn.Linear, side_input: SideInput):
        super().__init__()
        self.base_layer = base_layer
        self.in_features = base_layer.in_features
        self.out_features = base_layer.out_features
        self.side_input = side_input
        self.trex_A = nn.ParameterDict()
        self.trex_B = nn.ParameterDict()
        self.trex_router = nn.ParameterDict()
        self.trex_omega = nn.ParameterDict()
        self.trex_gamma = nn.ParameterDict()
        self.trex_mapper = nn.ParameterDict()
        self.scales: dict[str, RoutingScales] = {}
        self.dropout: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, config: TRexConfig, inference_mode: bool = False) -> None:
        """Add an adapter: A Kaiming-uniform, B and W_r zero, so that it starts as the base layer."""
        num_pairs = config.num_pairs
        A = torch.empty(config.num_in_experts, self.in_features)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        self.trex_A[adapter_name] = nn.Parameter(A)
        self.trex_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, config.num_out_experts))
        self.trex_router[adapter_name] = nn.Parameter(torch.zeros(num_pairs, self.in_features))
        # One element rather than a scalar: ZeRO-3 cannot shard 0-dimensional parameters.
        self.trex_omega[adapter_name] = nn.Parameter(torch.zeros(1))
        self.trex_gamma[adapter_name] = nn.Parameter(torch.zeros(1))
        if config.intuition_transform == "mapped":
            self.trex_mapper[adapter_name] = nn.Parameter(_initial_map(num_pairs, config.num_clusters))
        self.scales[adapter_name] = RoutingScales(
            token_scale=float(num_pairs) if config.token_scale is None else config.token_scale,
            intuition_scale=config.intuition_scale,
            gate_sharpness=config.gate_sharpness,
        )
        self.dropout[adapter_name] = config.dropout
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(batch, seq, in_features) -> (batch, seq, out_features).

        Raises:
            ValueError: if an adapter is active and the pass has no intuition scores, or x is not 3-dimensional.
        """
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        self._register_in_zero3()
        for adapter_name in self.active_adapters:
            if adapter_name in self.trex_A:
                y = self._update(adapter_name, y, x)
        return y

    def _register_in_zero3(self) -> None:
        """Have DeepSpeed gather the adapters' parameters whenever this module runs.

        They lie in ParameterDicts, which have no forward of their own for ZeRO-3 to gather them at.
        (Its other way, a leaf module gathered as a whole, loses gradients where the module's input
        needs none, as in the first layer.)
        """
        parameters = [p for name in self.adapter_layer_names for p in getattr(self, name).values()]
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
                f"T-REX adapts linears whose input is (batch, seq, features), this one got {tuple(x.shape)}; "
                "leave it out with exclude_modules"
            )
        scores = side_input.rows(adapter_name, *x.shape[:2])
        # Under autocast x may still be float32 while y is not. The products below choose their own
        # types, so autocast must not choose again in the forward and not in the backward.
        with _without_autocast(x.device.type):
            x = x.to(y.dtype)
            if adapter_name in self.trex_mapper:
                mapper = self.trex_mapper[adapter_name]
                scores = scores.to(mapper.dtype) @ mapper.t()
            arguments = (
                self.trex_A[adapter_name],
                self.trex_B[adapter_name],
                self.trex_router[adapter_name],
                self.trex_omega[adapter_name],
                self.trex_gamma[adapter_name],
                scores,
                self.scales[adapter_name],
                side_input.token_rows,
            )
            dropout = self.dropout[adapter_name]
            if self.training and dropout > 0.0:
                # Experts and router read different inputs here, so they cannot share one product.
                expert_input = nn.functional.dropout(x, dropout)
                return routed_update_reference(y, x, *arguments, expert_input)
            return routed_update(y, x, *arguments)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refused: see `TRexModel.merge_and_unload`."""
        raise NotImplementedError(CANNOT_MERGE)

    def unmerge(self) -> None:
        """Refused: see `TRexModel.merge_and_unload`."""
        raise NotImplementedError(CANNOT_MERGE)

    def __repr__(self) -> str:
        return "trex." + super().__repr__()


def _without_autocast(device_type: str) -> AbstractContextManager:
    # The meta device, where the planner runs the layer, has no autocast to switch off.
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)


CANNOT_MERGE = (
    "a T-REX adapter cannot be merged into the base weights: its update depends on every token and on the sample's "
    "intuition. Use the adapted model as it is, or model.unload() to get the base model back."
)


def _initial_map(num_pairs: int, num_clusters: int) -> Tensor:
    """p(c)'s start, (I*J, N): the identity where N = I*J; else clusters (or pairs) wrap around.

    Each pair reads the mean of the clusters assigned to it, so no random numbers are drawn and
    "mapped" starts as "raw" where both exist.
    """
    pairs = torch.arange(num_pairs).unsqueeze(1)
    clusters = torch.arange(num_clusters).unsqueeze(0)
    assigned = (clusters % num_pairs == pairs % num_clusters).float()
    return assigned / assigned.sum(dim=1, keepdim=True)
