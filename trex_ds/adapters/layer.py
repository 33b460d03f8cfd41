"""The adapted linear: a frozen base layer plus the routed experts of each adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trex_ds.adapters.passes import Pass
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.routed_update import routed_update, routed_update_reference
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


def linear_sizes(linear: nn.Module) -> tuple[int, int]:
    """Features in and out of a linear, of torch or of GPT-2's kind; its weight may be sharded away."""
    sizes = ("nx", "nf") if isinstance(linear, Conv1D) else ("in_features", "out_features")
    return getattr(linear, sizes[0]), getattr(linear, sizes[1])


class RoutedLinear(nn.Module, BaseTunerLayer):
    """y = W0 x + B (G(x)^T A x), one set of parameters per adapter name; the router makes G with all its scales.

    Args:
        base_layer: the frozen linear, in float or quantized, or GPT-2's Conv1D; only its forward and its
            sizes are used, so its weight may be sharded away.
        side_input: where the current pass's intuition scores are found, and what routers say of it is left.
        name: of the linear in its model, for errors.
    """

    adapter_layer_names = ("trex_A", "trex_B", "trex_router")
    other_param_names = ("dropout",)

    if TYPE_CHECKING:  # of PEFT's mixin, whose types are not looked at
        active_adapters: list[str]
        _move_adapter_to_device_of_base_layer: Callable[[str], None]

    def __init__(self, base_layer: nn.Module, side_input: SideInput, name: str = "an adapted linear"):
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        self.in_features, self.out_features = linear_sizes(base_layer)
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
        """Do what PEFT does, but keep A frozen for methods that do not train it."""
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
        """(..., in_features) -> (..., out_features).

        Raises:
            ValueError: if an active adapter takes intuition scores and the pass has none, or none for this input, or
                the base layer gives something else than its matrix's product.
        """
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        if not isinstance(y, Tensor) or y.shape != (*x.shape[:-1], self.out_features):
            raise ValueError(
                f"{self.name} is a {type(self.base_layer).__name__} with a forward of its own, which is no product of "
                f"its input with one matrix; leave it out with exclude_modules: ['{self.name.rpartition('.')[2]}']"
            )
        self._register_in_zero3()
        current = self.side_input.current
        if current is not None and current.adapter_names is not None:
            return self._mixed(current, y, x)
        for adapter_name in self.active_adapters:
            if adapter_name in self.trex_A:
                if current is None:
                    raise ValueError(NO_INTUITION)
                shape, token_rows = current.fit(adapter_name, x.shape[:-1], self.name)
                scores = current.by_adapter.get(adapter_name)
                laid_out = y.reshape(*shape, -1), x.reshape(*shape, -1)
                y = self._update(adapter_name, *laid_out, scores, token_rows).view(y.shape)
        return y

    def _mixed(self, current: Pass, y: Tensor, x: Tensor) -> Tensor:
        """The output for a batch whose rows have adapters of their own: (..., in_features) -> (..., out_features)."""
        assert current.adapter_names is not None
        flat_x, flat_y = x.reshape(-1, self.in_features), y.reshape(-1, self.out_features)
        for adapter_name in sorted(self.trex_A.keys() & set(current.adapter_names)):
            shape, token_rows = current.fit(adapter_name, x.shape[:-1], self.name)
            if token_rows is None:
                token_rows = torch.arange(shape[0], device=x.device).unsqueeze(1).expand(shape)
            own = torch.tensor([name == adapter_name for name in current.adapter_names], device=x.device)
            samples = token_rows.flatten()
            tokens = own[samples].nonzero()[:, 0]
            part = (flat_y[tokens].unsqueeze(0), flat_x[tokens].unsqueeze(0))
            scores = current.by_adapter.get(adapter_name)
            updated = self._update(adapter_name, *part, scores, samples[tokens].unsqueeze(0))
            flat_y = flat_y.index_copy(0, tokens, updated.squeeze(0))
        return flat_y.view(y.shape)

    def adapter_tensors(self) -> list[Tensor]:
        """Every parameter that the adapters of this layer read, once each."""
        found = [*self.trex_A.values(), *self.trex_B.values()]
        return found + [tensor for router in self.trex_router.values() for tensor in cast("Router", router).tensors()]

    def _register_in_zero3(self) -> None:
        """Have DeepSpeed gather the adapters' parameters whenever this module runs.

        They lie in containers, which have no forward of their own for ZeRO-3 to gather them at.
        (Its other way, a leaf module gathered as a whole, loses gradients where the module's input
        needs none, as in the first layer.)
        """
        parameters = self.adapter_tensors()
        if not hasattr(parameters[0], "ds_id"):
            return
        # A and B may have been registered by being read here, which those of the router are not.
        registered = getattr(self, "_external_params", {})
        missing = [parameter for parameter in parameters if id(parameter) not in registered]
        if not missing:
            return
        import deepspeed

        for parameter in missing:
            deepspeed.zero.register_external_parameter(self, parameter)
        cast(Any, missing[0]).all_gather(param_list=missing)  # too late for this pass's hook

    def _update(
        self, adapter_name: str, y: Tensor, x: Tensor, scores: Tensor | None, token_rows: Tensor | None
    ) -> Tensor:
        """One adapter's update added to y (batch, seq, out_features), for x (batch, seq, in_features)."""
        router = cast("Router", self.trex_router[adapter_name])
        # Under autocast x may still be float32 while y is not. The products below choose their own
        # types, so autocast must not choose again in the forward and not in the backward.
        with _without_autocast(x.device.type):
            x = x.to(y.dtype)
            A, B = self.trex_A[adapter_name], self.trex_B[adapter_name]
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
