"""TRexConfig: everything that defines a T-REX adapter, serialised beside its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from peft import PeftConfig, TaskType
from peft.utils import PeftType

from trex_ds.adapters.peft_type import add_peft_type
from trex_ds.intuition.centroids import CENTROIDS_FILE, Centroids

add_peft_type("TREX")

IntuitionTransform = Literal["raw", "centered", "mapped"]


@dataclass
class TRexConfig(PeftConfig):
    """Configuration of a T-REX adapter (arXiv 2404.08985); defaults are the paper's setting.

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    # PEFT's default is None, whose generate would not know of intuition.
    task_type: str | TaskType | None = field(default=TaskType.CAUSAL_LM, metadata={"help": "PEFT's task type"})
    num_in_experts: int = field(default=4, metadata={"help": "I, input-side rank-one experts"})
    num_out_experts: int = field(default=8, metadata={"help": "J, output-side rank-one experts"})
    num_clusters: int = field(default=32, metadata={"help": "N, semantic clusters"})
    target_modules: list[str] | str | None = field(
        default="all-linear", metadata={"help": "names or regex of the linears to adapt"}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "names or regex of linears to leave alone"}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None,
        metadata={"help": "indices of the layers to adapt (the first number in a module's name); null: all"},
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "other modules to train in full and to save with the adapter"}
    )
    dropout: float = field(default=0.0, metadata={"help": "dropout on A's input; the router sees x as it is"})
    intuition_scale: float = field(default=4.0, metadata={"help": "weight of the intuition in the routing"})
    token_scale: float | None = field(
        default=None, metadata={"help": "weight of the token routing; I*J if null, as in the paper"}
    )
    gate_sharpness: float = field(default=100.0, metadata={"help": "k in sigmoid(k * omega), sigmoid(k * gamma)"})
    intuition_transform: IntuitionTransform = field(
        default="raw",
        metadata={
            "help": "p(c): 'raw' cosines as in the reference; 'centered' standardises them by the training set's "
            "statistics; 'mapped' learns an N -> I*J map"
        },
    )
    centroids_fingerprint: str | None = field(
        default=None, metadata={"help": "identity of the centroids that travel with the adapter"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.TREX
        self._centroids: Centroids | None = None
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
        if isinstance(self.exclude_modules, list | tuple):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        problems = self._problems()
        if problems:
            raise ValueError("TRexConfig: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        found = [
            f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}"
            for name in ("num_in_experts", "num_out_experts", "num_clusters")
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1
        ]
        if not 0.0 <= self.dropout < 1.0:
            found.append(f"dropout must lie in [0, 1), got {self.dropout!r}")
        if self.gate_sharpness <= 0:
            found.append(f"gate_sharpness must be positive, got {self.gate_sharpness!r}")
        if self.intuition_transform not in get_args(IntuitionTransform):
            found.append(
                f"intuition_transform must be one of {', '.join(get_args(IntuitionTransform))}, "
                f"got {self.intuition_transform!r}"
            )
        elif not found and self.intuition_transform != "mapped" and self.num_clusters != self.num_pairs:
            found.append(
                f"num_clusters is {self.num_clusters} but num_in_experts * num_out_experts is {self.num_pairs}; "
                f"intuition_transform={self.intuition_transform!r} needs them equal, 'mapped' takes any number"
            )
        return found

    @property
    def num_pairs(self) -> int:
        """I*J, the number of rank-one experts that can be mixed."""
        return self.num_in_experts * self.num_out_experts

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
