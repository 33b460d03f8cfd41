"""The PEFT tuner: injection, the side input of each pass, checkpointing, refusal to merge.

Everything that leans on PEFT's private names is in this file, in layer.py's base class calls, and
in peft_type.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trex_ds.adapters.balance import update_balances
from trex_ds.adapters.layer import CANNOT_MERGE, NO_INTUITION, RoutedLinear, linear_sizes
from trex_ds.adapters.passes import BASE_NAME, Pass, flat_segments, input_shape, isolated
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.shared_reading import SharedReading
from trex_ds.adapters.side_input import SideInput
from trex_ds.adapters.targets import target_problems
from trex_ds.modeling.mixers import read_without_a_call


class RoutedModel(BaseTuner):
    """A model whose linears carry routed adapters; made by `peft.get_peft_model(base, TRexConfig(...))`.

    `forward` and `generate` take `intuition`, the raw scores (batch, num_clusters) of each sample, which T-REX
    needs and methods without intuition leave unread; `forward` takes packed rows too.
    """

    prefix = "trex_"
    tuner_layer_cls = RoutedLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}
    # The layers share the side input, so PEFT must not hand out the layers without this model.
    uses_shared_state = True

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        if "_side_input" not in self.__dict__:
            self._side_input = SideInput()
            self._adapters_enabled = True
            self._intuition_hook = model.register_forward_pre_hook(self._take_intuition, with_kwargs=True)

    def _post_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        if getattr(model, "is_activation_checkpointing", False):
            self.gradient_checkpointing_enable()

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """PEFT's, for the first adapter and for those that are added.

        Raises:
            ValueError: for names that match nothing, or a shared router where no adapted linears are known to read
                the same input.
        """
        if problems := target_problems(model, self.peft_config[adapter_name]):
            raise ValueError("; ".join(problems))
        self._shared_reading = SharedReading()
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        if (setting := self.peft_config[adapter_name].shared_by) is not None:
            self._shared_reading.check(setting)

    def _check_new_adapter_config(self, config: RoutedConfig) -> None:
        super()._check_new_adapter_config(config)
        config.check_ready()

    def _layers(self) -> list[RoutedLinear]:
        return [module for module in self.model.modules() if isinstance(module, RoutedLinear)]

    @staticmethod
    def _check_target_module_exists(peft_config: RoutedConfig, key: str) -> Any:
        # PEFT resolves "all-linear" to full names, and for a full name it forgets layers_to_transform.
        layers = peft_config.layers_to_transform
        if layers is not None:
            index = next((int(part) for part in key.split(".") if part.isdigit()), None)
            if index not in ([layers] if isinstance(layers, int) else layers):
                return False
        return BaseTuner._check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: RoutedConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if not isinstance(target, RoutedLinear) and (
            isinstance(target, BaseTunerLayer) or not isinstance(target, nn.Linear | Conv1D)
        ):
            raise ValueError(
                f"{current_key} is a {type(target).__name__}; routed adapters take torch.nn.Linear, its quantized "
                "kinds and GPT-2's Conv1D. Leave it out of target_modules, or name it in exclude_modules."
            )
        if target_name in (read := read_without_a_call(parent)):
            raise ValueError(
                f"{current_key}: a Mamba mixer reads the weights of {', '.join(read)} without calling them, so an "
                f"adapter there would have no effect; set exclude_modules: {read}"
            )
        in_features = linear_sizes(target)[0]
        router = peft_config.make_router(in_features)
        if peft_config.shared_by is not None:
            self._shared_reading.join(current_key, in_features, router)
        if isinstance(target, RoutedLinear):
            target.update_layer(adapter_name, peft_config, router, inference_mode=peft_config.inference_mode)
            return
        layer = RoutedLinear(target, self._side_input, current_key)
        # set_adapter inside update_layer makes the layer's active adapters trainable; a second
        # adapter that is added later must not become active by being added.
        layer._active_adapter = self.active_adapters
        layer.update_layer(adapter_name, peft_config, router, inference_mode=peft_config.inference_mode)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        super()._enable_adapter_layers(enabled)
        self._adapters_enabled = enabled

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base model's forward with the adapters' updates.

        Args:
            *args: as for the base model.
            **kwargs: as for the base model, and `intuition`: raw cosine scores c(x), (batch, num_clusters);
                required while an adapter is active. Packed, with several samples a row: `intuition`
                (batch, segments, num_clusters) and `segment_ids`, (batch, seq) int64, each token's segment in
                its row (any of them for padding); position_ids then start again at 0 with each segment, and
                there is no attention_mask.

        Raises:
            ValueError: if an adapter is active and intuition is missing or of another shape, or if the
                arguments of a packed pass do not fit together or would not keep its segments apart.
        """
        return self.model(*args, **kwargs)

    def _take_intuition(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Keep for the layers, before the base model's forward, what they need to know of the pass.

        A hook, because PEFT calls the base model past this one for some task types.
        """
        intuition, segment_ids = kwargs.pop("intuition", None), kwargs.pop("segment_ids", None)
        call = self._side_input
        shape = input_shape(args, kwargs)
        if segment_ids is not None:
            kwargs = isolated(kwargs, model)
        call.losses = {}
        if call.generation is not None:
            call.current = call.generation.of_generation(shape)
            return args, kwargs
        passed = self._pass(intuition, segment_ids)
        if passed is not None:
            passed = replace(passed, shape=shape, kept=kwargs.get("logits_to_keep", 0))
            if passed.adapter_names is not None and shape is not None and len(passed.adapter_names) != shape[0]:
                raise ValueError(
                    f"adapter_names has {len(passed.adapter_names)} names for {shape[0]} rows; give one for each"
                )
        call.current = passed
        return args, kwargs

    def generate(self, *args: Any, intuition: Tensor | None = None, **kwargs: Any) -> Any:
        """The base model's generate; `intuition` (batch, num_clusters) is repeated for beams and returned sequences.

        Raises:
            ValueError: as for `forward`, or if rows are packed: a row goes on from its end, where only its last
                sample is.
        """
        if "segment_ids" in kwargs or (intuition is not None and intuition.dim() == 3):
            raise ValueError("generate takes one sample a row: intuition (batch, num_clusters) and no segment_ids")
        passed = self._pass(intuition)
        if passed is None:
            return self.model.generate(*args, **kwargs)
        with self._side_input.generating(passed):
            return self.model.generate(*args, **kwargs)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, adapter_names: Sequence[str] | None = None, **_: Any) -> Any:
        """PEFT's way to tell which adapter each row of a batch has (`adapter_names=`), for calls within the block."""
        if adapter_names is not None:
            if self.training:
                raise ValueError("adapter_names is for inference: call model.eval() first, or train one adapter")
            if unknown := sorted(set(adapter_names) - self.peft_config.keys() - {BASE_NAME}):
                raise ValueError(
                    f"adapter_names has {', '.join(unknown)}, but the model's adapters are "
                    f"{', '.join(self.peft_config)}; a row of the base model alone is {BASE_NAME}"
                )
        with self._side_input.mixed(None if adapter_names is None else tuple(adapter_names)):
            yield

    def auxiliary_loss(self) -> Tensor | None:
        """What the routers of the latest forward pass add to its loss, (1,), already weighted: their mean; or None.

        SiRA has one. Your own training loop adds it to the loss, once; `trex-ds train` does.
        """
        losses, self._side_input.losses = list(self._side_input.losses.values()), {}
        return torch.stack([loss.to(losses[0].device) for loss in losses]).mean(dim=0) if losses else None

    def update_balance(self) -> None:
        """Move SMoRA's and FlyLoRA's biases against the LoRA ranks' loads in the latest training pass.

        For your own training loop, after each backward; `trex-ds train` calls it. A collective where there
        are several processes.
        """
        update_balances(self._side_input.take_loads())

    def unload(self) -> nn.Module:
        """Take the adapters out and return the base model."""
        self._intuition_hook.remove()
        return super().unload()

    def _pass(self, intuition: Tensor | None, segment_ids: Tensor | None = None) -> Pass | None:
        """What a call with these arguments gives to the layers; None if no adapter is active."""
        names = self._side_input.adapter_names
        used = self.active_adapters if names is None else dict.fromkeys(names)
        active = [name for name in used if name in self.peft_config] if self._adapters_enabled else []
        if not active and names is None:
            return None
        if names is not None and segment_ids is not None:
            raise ValueError("adapter_names gives each row one adapter, so rows cannot be packed: omit segment_ids")
        routed = [name for name in active if self.peft_config[name].needs_intuition]
        if not routed:
            return Pass({}, adapter_names=names)
        if intuition is None:
            raise ValueError(NO_INTUITION)
        given = tuple(intuition.shape)
        intuition, token_rows = flat_segments(intuition, segment_ids)
        if names is not None and len(names) != len(intuition):
            raise ValueError(f"intuition has {len(intuition)} rows but adapter_names {len(names)}; give one for each")
        by_adapter = {}
        for name in routed:
            config: RoutedConfig = self.peft_config[name]
            if intuition.dim() != 2 or intuition.shape[1] != config.num_clusters:
                raise ValueError(
                    f"intuition must be (batch, num_clusters={config.num_clusters}) for adapter {name!r}, got {given}"
                )
            by_adapter[name] = config.transform(intuition.to(torch.promote_types(intuition.dtype, torch.float32)))
        return Pass(by_adapter, token_rows=token_rows, adapter_names=names)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Switch on the base model's checkpointing; the side input of a pass is brought back when its layers run again.

        Only non-reentrant checkpointing can do that; without it two forward passes before a
        backward would silently recompute with the wrong scores.

        Raises:
            ValueError: for use_reentrant=True.
        """
        arguments = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}
        if arguments["use_reentrant"]:
            raise ValueError(
                "reentrant checkpointing recomputes layers with the intuition of the latest forward pass, which may be "
                "another batch's; use gradient_checkpointing_kwargs={'use_reentrant': False}"
            )
        arguments["context_fn"] = self._recompute_contexts
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=arguments)

    def _recompute_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        # Called in the forward pass, once a checkpointed block: what is current now is its own.
        return nullcontext(), self._side_input.again(self._side_input.current)

    def merge_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: see `merge_and_unload`."""
        raise NotImplementedError(CANNOT_MERGE)

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the update depends on the token and the sample, so no fixed weight equals it."""
        raise NotImplementedError(CANNOT_MERGE)
