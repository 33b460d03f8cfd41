"""TRexConfig: everything that defines a T-REX adapter, serialized beside its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from peft import PeftConfig

from trex_ds.adapter_folder import CENTROIDS_FILE
from trex_ds.adapters.peft_type import add_peft_type
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.trex_router import (
    Pairs,
    RoutingScales,
    TokenRouting,
    TRexRouter,
    initial_map,
    matching_scale,
)
from trex_ds.intuition.centroids import Centroids

add_peft_type("TREX")

IntuitionTransform = Literal["raw", "centered", "mapped", "none"]


@dataclass
class TRexConfig(RoutedConfig):
    """Configuration of a T-REX adapter (arXiv 2404.08985); defaults are the paper's setting.

    With `pairs="diagonal"` it is MoR1E, the first version of the paper.

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    method: ClassVar[str] = "trex"

    num_in_experts: int = field(default=4, metadata={"help": "I, input-side rank-one experts"})
    num_out_experts: int = field(default=8, metadata={"help": "J, output-side rank-one experts"})
    num_clusters: int = field(default=32, metadata={"help": "N, semantic clusters"})
    pairs: Pairs = field(
        default="full",
        metadata={"help": "which rank-one experts are mixed: 'full' all I*J, 'diagonal' (i, i) only, I = J"},
    )
    router: TokenRouting = field(
        default="token",
        metadata={
            "help": "token routing: 'token' W_r of (I*J, n), the paper's; 'factorized' (I + J, n); 'bottleneck' reads "
            "A x, (I*J, I); 'low_rank' of router_rank; 'shared' by the linears that read the same input; 'none'"
        },
    )
    router_rank: int = field(default=4, metadata={"help": "q of router='low_rank': U (q, n) and V (I*J, q)"})
    intuition_scale: float = field(default=4.0, metadata={"help": "weight of the intuition in the routing"})
    token_scale: float | None = field(
        default=None, metadata={"help": "weight of the token routing; I*J if null, as in the paper"}
    )
    gate_sharpness: float = field(default=100.0, metadata={"help": "k in sigmoid(k * omega), sigmoid(k * gamma)"})
    intuition_transform: IntuitionTransform = field(
        default="raw",
        metadata={
            "help": "p(c): 'raw' cosines as in the reference; 'centered' standardizes them by the training set's "
            "statistics; 'mapped' learns an N -> I*J map; 'none' leaves the intuition out"
        },
    )
    centroids_fingerprint: str | None = field(
        default=None, metadata={"help": "identity of the centroids that travel with the adapter"}
    )

    def __post_init__(self) -> None:
        self._centroids: Centroids | None = None
        super().__post_init__()

    def problems(self) -> list[str]:
        """See `RoutedConfig.problems`."""
        found = self.not_positive("num_in_experts", "num_out_experts", "num_clusters", "router_rank")
        if self.gate_sharpness <= 0:
            found.append(f"gate_sharpness must be positive, got {self.gate_sharpness!r}")
        for name, kind in (("pairs", Pairs), ("router", TokenRouting), ("intuition_transform", IntuitionTransform)):
            if getattr(self, name) not in get_args(kind):
                found.append(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if found:
            return found
        if self.pairs == "diagonal":
            if self.num_in_experts != self.num_out_experts:
                found.append(
                    f"pairs: 'diagonal' needs num_in_experts = num_out_experts, got {self.num_in_experts} and "
                    f"{self.num_out_experts}"
                )
            if self.router == "factorized":
                found.append("router: 'factorized' makes a product over pairs, which pairs: 'diagonal' has not")
        if self.router == "none" and self.intuition_scale == 0:
            found.append("intuition_scale: 0 leaves nothing that routes with router: 'none'; choose another")
        if not self.needs_intuition and self.token_scale == 0:
            found.append("token_scale: 0 leaves nothing that routes with intuition_transform: 'none'; choose another")
        if self.router == "none" and not self.needs_intuition:
            found.append("router: 'none' and intuition_transform: 'none' leave nothing that routes; keep one of them")
        if self.intuition_transform in ("raw", "centered") and self.num_clusters != self.num_pairs:
            pairs = "num_in_experts" if self.pairs == "diagonal" else "num_in_experts * num_out_experts"
            found.append(
                f"num_clusters is {self.num_clusters} but {pairs} is {self.num_pairs}; "
                f"intuition_transform={self.intuition_transform!r} needs them equal, 'mapped' takes any number"
            )
        return found

    @property
    def num_pairs(self) -> int:
        """The number of rank-one experts that can be mixed: I*J, or I where they are diagonal."""
        return self.num_in_experts * (1 if self.pairs == "diagonal" else self.num_out_experts)

    @property
    def needs_intuition(self) -> bool:
        """False only for the ablation without it."""
        return self.intuition_transform != "none"

    @property
    def is_ablation(self) -> bool:
        """Whether one of the two routings is left out, so that the other one's scale is matched to both."""
        return self.router == "none" or not self.needs_intuition

    @property
    def needs_statistics(self) -> bool:
        """Whether the training scores' mean and deviation, which lie with the centroids, must be known to build it."""
        return self.intuition_transform == "centered" or (self.router == "none" and self.needs_intuition)

    @property
    def num_in(self) -> int:
        """I, input-side experts."""
        return self.num_in_experts

    @property
    def num_out(self) -> int:
        """J, output-side experts."""
        return self.num_out_experts

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
        """The constants, an ablation's matched to the whole method: by the training scores' own statistics.

        An adapter without intuition has none; it is matched to the whole with centered scores, whose mean is 0
        and variance 1 whatever the data.
        """
        token_scale = float(self.num_pairs) if self.token_scale is None else self.token_scale
        scales = RoutingScales(token_scale, self.intuition_scale, self.gate_sharpness)
        if not self.is_ablation:
            return scales
        with torch.device("cpu"):  # a model may be made on the meta device, where numbers have no value
            mean, variance = torch.zeros(self.num_pairs), torch.ones(self.num_pairs)
            if self.intuition_transform in ("raw", "mapped"):
                assert self._centroids is not None, "RoutedModel checks it"
                mean, variance = self._centroids.mean, self._centroids.std.square()
            if self.intuition_transform == "mapped":
                to_pairs = initial_map(self.num_pairs, self.num_clusters)
                mean, variance = to_pairs @ mean, to_pairs.square() @ variance
        kept: Literal["token", "intuition"] = "intuition" if self.router == "none" else "token"
        return replace(scales, matched=matching_scale(self.num_pairs, scales, mean, variance, kept))

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
