"""The PEFT tuner: injection, the side input of each pass, checkpointing, refusal to merge.

Everything that leans on PEFT's private names is in this file, in layer.py's base class calls, and
in peft_type.py.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NoReturn

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import register_peft_method
from torch import Tensor, nn

from trex_ds.adapters.config import TRexConfig
from trex_ds.adapters.layer import CANNOT_MERGE, NO_INTUITION, TRexLinear
from trex_ds.adapters.side_input import Scores, SideInput, flat_segments, isolated


class TRexModel(BaseTuner):
    """A model whose linears carry T-REX adapters; made by `peft.get_peft_model(base, TRexConfig(...))`.

    `forward` and `generate` take `intuition`, the raw scores (batch, num_clusters) of each sample; `forward`
    takes packed rows too.
    """

    prefix = "trex_"
    tuner_layer_cls = TRexLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}
    # The layers share the side input, so PEFT must not hand out the layers without this model.
    uses_shared_state = True

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        if "_side_input" not in self.__dict__:
            self._side_input = SideInput()
            self._adapters_enabled = True
            self._generating = False
            self._intuition_hook = model.register_forward_pre_hook(self._take_intuition, with_kwargs=True)

    def _post_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        if getattr(model, "is_activation_checkpointing", False):
            self.gradient_checkpointing_enable()

    def _check_new_adapter_config(self, config: TRexConfig) -> None:
        super()._check_new_adapter_config(config)
        if config.intuition_transform == "centered" and config.centroids is None:
            raise ValueError(
                "intuition_transform='centered' standardises scores by statistics that lie with the centroids; "
                "call config.attach_centroids(Centroids.load(folder)) before get_peft_model"
            )

    @staticmethod
    def _check_target_module_exists(peft_config: TRexConfig, key: str) -> Any:
        # PEFT resolves "all-linear" to full names, and for a full name it forgets layers_to_transform.
        layers = peft_config.layers_to_transform
        if layers is not None:
            index = next((int(part) for part in key.split(".") if part.isdigit()), None)
            if index not in ([layers] if isinstance(layers, int) else layers):
                return False
        return BaseTuner._check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: TRexConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if isinstance(target, TRexLinear):
            target.update_layer(adapter_name, peft_config, inference_mode=peft_config.inference_mode)
            return
        if isinstance(target, BaseTunerLayer) or not isinstance(target, nn.Linear):
            raise ValueError(
                f"{current_key} is a {type(target).__name__}; T-REX adapts torch.nn.Linear and its quantised "
                "kinds. Leave it out of target_modules, or name it in exclude_modules."
            )
        layer = TRexLinear(target, self._side_input)
        # set_adapter inside update_layer makes the layer's active adapters trainable; a second
        # adapter that is added later must not become active by being added.
        layer._active_adapter = self.active_adapters
        layer.update_layer(adapter_name, peft_config, inference_mode=peft_config.inference_mode)
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
        """Before the base model's forward: keep its `intuition` and `segment_ids` for the layers.

        A hook, because PEFT calls the base model past this one for some task types.
        """
        intuition, segment_ids = kwargs.pop("intuition", None), kwargs.pop("segment_ids", None)
        if segment_ids is not None:
            attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
            kwargs = isolated(kwargs, attention)
        if not self._generating:
            self._side_input.current = self._scores(intuition, segment_ids)
        return args, kwargs

    def generate(self, *args: Any, intuition: Tensor | None = None, **kwargs: Any) -> Any:
        """The base model's generate; `intuition` (batch, num_clusters) is repeated for beams and returned sequences.

        Raises:
            ValueError: as for `forward`, or if rows are packed: a row goes on from its end, where only its last
                sample is.
        """
        if "segment_ids" in kwargs or (intuition is not None and intuition.dim() == 3):
            raise ValueError("generate takes one sample a row: intuition (batch, num_clusters) and no segment_ids")
        with self._side_input.using(self._scores(intuition, expandable=True)):
            self._generating = True
            try:
                return self.model.generate(*args, **kwargs)
            finally:
                self._generating = False

    def unload(self) -> nn.Module:
        """Take the adapters out and return the base model."""
        self._intuition_hook.remove()
        return super().unload()

    def _scores(
        self, intuition: Tensor | None, segment_ids: Tensor | None = None, expandable: bool = False
    ) -> Scores | None:
        active = [name for name in self.active_adapters if name in self.peft_config] if self._adapters_enabled else []
        if not active:
            return None
        if intuition is None:
            raise ValueError(NO_INTUITION)
        given = tuple(intuition.shape)
        intuition, token_rows = flat_segments(intuition, segment_ids)
        by_adapter = {}
        for name in active:
            config: TRexConfig = self.peft_config[name]
            if intuition.dim() != 2 or intuition.shape[1] != config.num_clusters:
                raise ValueError(
                    f"intuition must be (batch, num_clusters={config.num_clusters}) for adapter {name!r}, got {given}"
                )
            scores = intuition.to(torch.promote_types(intuition.dtype, torch.float32))
            if config.intuition_transform == "centered":
                assert config.centroids is not None
                mean, std = (t.to(scores) for t in (config.centroids.mean, config.centroids.std))
                scores = (scores - mean) / std
            by_adapter[name] = scores
        return Scores(by_adapter, token_rows, expandable)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """As the base model's, with the side input of each pass brought back when its layers run again.

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
        return nullcontext(), self._side_input.using(self._side_input.current)

    def merge_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: see `merge_and_unload`."""
        raise NotImplementedError(CANNOT_MERGE)

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the update depends on the token and the sample, so no fixed weight equals it."""
        raise NotImplementedError(CANNOT_MERGE)


register_peft_method(name="trex", config_cls=TRexConfig, model_cls=TRexModel)
