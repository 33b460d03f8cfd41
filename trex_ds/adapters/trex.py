"""TRexConfig: everything that defines a T-REX adapter, serialized beside its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from peft import PeftConfig
from torch import Tensor

from trex_ds.adapter_folder import CENTROIDS_FILE
from trex_ds.adapters.intuition_transform import moments, of_pass
from trex_ds.adapters.peft_type import routed_method
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.trex_router import RoutingScales, TRexRouter, matching_scale
from trex_ds.intuition.centroids import Centroids, placeholder_centroids
from trex_ds.methods.trex import TRexFields


@routed_method("TREX")
@dataclass
class TRexConfig(TRexFields, RoutedConfig):
    """Configuration of a T-REX adapter (arXiv 2404.08985); defaults are the paper's setting.

    With `pairs="diagonal"` it is MoR1E, the first version of the paper.

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    centroids_fingerprint: str | None = field(
        default=None, metadata={"help": "identity of the centroids that travel with the adapter"}
    )

    def __post_init__(self) -> None:
        self._centroids: Centroids | None = None
        super().__post_init__()

    @property
    def is_ablation(self) -> bool:
        """Whether one of the two routings is left out, so that the other one's scale is matched to both."""
        return self.router == "none" or not self.needs_intuition

    @property
    def needs_statistics(self) -> bool:
        """Whether the training scores' mean and deviation, which lie with the centroids, must be known to build it."""
        return self.intuition_transform == "centered" or (self.router == "none" and self.needs_intuition)

    def make_router(self, in_features: int) -> TRexRouter:
        """See `RoutedConfig.make_router`."""
        return TRexRouter(
            in_features,
            self.num_in_experts,
            self.num_out_experts,
            pairs=self.pairs,
            token=self.router,
            rank=self.router_rank,
            num_clusters=self.num_clusters if self.needs_intuition else 0,
            mapped=self.intuition_transform == "mapped",
            scales=self._scales(),
        )

    def _scales(self) -> RoutingScales:
        """The constants; an ablation's are matched to the whole method by the training scores' own statistics."""
        token_scale = float(self.num_pairs) if self.token_scale is None else self.token_scale
        scales = RoutingScales(token_scale, self.intuition_scale, self.gate_sharpness)
        if not self.is_ablation:
            return scales
        with torch.device("cpu"):  # a model may be made on the meta device, where numbers have no value
            mean, variance = moments(self.intuition_transform, self.num_pairs, self._centroids)
        kept: Literal["token", "intuition"] = "intuition" if self.router == "none" else "token"
        return replace(scales, matched=matching_scale(self.num_pairs, scales, mean, variance, kept))

    def transform(self, scores: Tensor) -> Tensor:
        """See `RoutedConfig.transform`."""
        return of_pass(self.intuition_transform, scores, self._centroids)

    def attach_placeholders(self) -> None:
        """See `RoutedConfig.attach_placeholders`."""
        if self.needs_statistics and self._centroids is None:
            self.attach_centroids(placeholder_centroids(self.num_clusters))

    @property
    def shared_by(self) -> str | None:
        """See `RoutedConfig.shared_by`."""
        return "router='shared'" if self.router == "shared" else None

    def check_ready(self) -> None:
        """See `RoutedConfig.check_ready`."""
        if self.needs_statistics and self._centroids is None:
            raise ValueError(
                f"intuition_transform={self.intuition_transform!r} with router={self.router!r} needs the scores' "
                "statistics, which lie with the centroids; call config.attach_centroids(Centroids.load(folder)) before "
                "get_peft_model"
            )

    @property
    def centroids(self) -> Centroids | None:
        """The attached centroids; saved with the adapter and restored with it."""
        return self._centroids

    def attach_centroids(self, centroids: Centroids) -> None:
        """Make `centroids` the adapter's own.

        Raises:
            ValueError: if their number is not num_clusters, or if the configuration was saved with others.
        """
        if centroids.num_clusters != self.num_clusters:
            raise ValueError(
                f"the centroids have {centroids.num_clusters} clusters but num_clusters is {self.num_clusters}"
            )
        if self.centroids_fingerprint not in (None, centroids.fingerprint):
            raise ValueError(
                f"the adapter was made with centroids {self.centroids_fingerprint}, these are "
                f"{centroids.fingerprint}; its routing means nothing with others"
            )
        self.centroids_fingerprint = centroids.fingerprint
        self._centroids = centroids

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write adapter_config.json and, where centroids are attached, centroids.safetensors."""
        if self.centroids_fingerprint is not None and self._centroids is None:
            raise ValueError(
                f"this configuration names centroids {self.centroids_fingerprint} but has none attached, so the "
                "saved adapter could not compute its intuition; call config.attach_centroids(...) first"
            )
        super().save_pretrained(save_directory, **kwargs)
        if self._centroids is not None:
            self._centroids.save(save_directory)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> PeftConfig:
        """Read a configuration and its centroids from a folder or a hub repository.

        Raises:
            FileNotFoundError: if the configuration names centroids that are not beside it.
        """
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        if isinstance(config, TRexConfig) and config.centroids_fingerprint is not None:
            config.attach_centroids(
                Centroids.load(cls._centroids_path(pretrained_model_name_or_path, subfolder, kwargs))
            )
        return config

    @classmethod
    def _centroids_path(cls, folder_or_repository: str, subfolder: str | None, kwargs: dict[str, Any]) -> str:
        folder = os.path.join(folder_or_repository, subfolder or "")
        if os.path.isdir(folder):
            return os.path.join(folder, CENTROIDS_FILE)
        from huggingface_hub import hf_hub_download

        hub_kwargs, _, _ = cls._split_kwargs(kwargs)
        return hf_hub_download(folder_or_repository, CENTROIDS_FILE, subfolder=subfolder, **hub_kwargs)
