"""What a base model is, wherever it lies: its weights and what its config makes of them."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from trex_ds.adapter_folder import IDENTITY_FILE
from trex_ds.files import write_json
from trex_ds.modeling.base import model_location
from trex_ds.modeling.config import ModelConfig

log = logging.getLogger(__name__)


_WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
# With the same weights, another value of one of these is another model.
_CONFIG = (
    *("model_type", "num_attention_heads", "num_key_value_heads", "hidden_act", "rms_norm_eps"),
    *("layer_norm_epsilon", "rope_theta", "rope_factor", "rope_scaling", "sliding_window"),
    *("final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar", "logits_scaling", "logit_scale"),
    *("residual_multiplier", "embedding_multiplier", "attention_multiplier"),
)
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Of a tensor with more elements than all samples hold, these are read: 7 billion parameters take a second.
_SAMPLES, _SAMPLE_LENGTH = 16, 2048


@dataclass(frozen=True)
class BaseIdentity:
    """A base model by content, and where it was found."""

    name: str
    """Name as the user gave it: a folder, a hub id or `embedded:...`."""
    weights: str
    """16 hex digits of a hash of samples of every tensor: the same for a moved, renamed or re-sharded copy."""
    config: dict[str, Any] = field(default_factory=dict)
    """Part of its config that changes its answers."""

    def __str__(self) -> str:
        return f"{self.name} ({self.config.get('model_type', 'unknown type')}, weights {self.weights})"

    def difference(self, other: BaseIdentity) -> str:
        """Say in what `other` is another model: `weights A, not B`; "" if in nothing."""
        pairs = [("weights", self.weights, other.weights)]
        # Versions of transformers write more or fewer of the fields.
        pairs += [(name, self.config[name], other.config[name]) for name in self.config if name in other.config]
        return "; ".join(f"{name} {mine}, not {theirs}" for name, mine, theirs in pairs if mine != theirs)

    def save(self, folder: Path) -> None:
        """Write `folder`/base_model.json."""
        write_json(folder / IDENTITY_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> BaseIdentity | None:
        """What `save` wrote; None if there is none.

        Raises:
            ValueError: if the file is damaged.
        """
        file = folder / IDENTITY_FILE
        if not file.is_file():
            return None
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged: {error}; copy it again from where it was saved") from error


def base_identity(model: ModelConfig) -> BaseIdentity | None:
    """The identity of a model whose files are on this machine; None if it is saved in no format that is known here."""
    folder = _folder(model)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config | (config.get("text_config") or {}) | {"model_type": config.get("model_type")}
    rope = config.get("rope_parameters") or {}
    named = {"rope_theta": "rope_theta", "factor": "rope_factor"}
    config |= {name: rope[key] for key, name in named.items() if key in rope}
    files = _weight_files(folder)
    if not files:
        return None
    # Without their names, which versions of transformers change, and each once, since tied ones may be saved twice.
    digests = {digest for file in files for digest in _digests(file)}
    weights = hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]
    return BaseIdentity(model.name, weights, {k: config[k] for k in _CONFIG if config.get(k) is not None})


def check_base(model: ModelConfig, adapter: Path) -> None:
    """Refuse another base model than an adapter was trained on.

    Args:
        model: whose files are on this machine.
        adapter: folder of the adapter; one that does not say what its base model was is taken with a warning.

    Raises:
        ValueError: naming both models.
    """
    trained_on, given = BaseIdentity.load(adapter), base_identity(model)
    if trained_on is None or given is None:
        log.warning("%s does not say what weights its base model had; make sure that %s is it", adapter, model.name)
    elif difference := given.difference(trained_on):
        raise ValueError(
            f"the adapter in {adapter} was trained on {trained_on}, and {given} is another model: {difference}. Name "
            "the former as the base model (--model)"
        )


def _folder(model: ModelConfig) -> Path:
    location = model_location(model.name)
    if Path(location).is_dir():
        return Path(location)
    from transformers.utils import cached_file

    return Path(str(cached_file(location, "config.json", revision=model.revision))).parent


def _weight_files(folder: Path) -> list[Path]:
    for single, index in _WEIGHTS:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            names = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / name for name in sorted(set(names))]
    return []


def _digests(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        if file.suffix != ".safetensors":  # a pickle, of which only the bytes are looked at
            yield _digest(stream, "U8", [file.stat().st_size], 0, file.stat().st_size)
            return
        start = 8 + int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(start - 8))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                yield _digest(stream, entry["dtype"], entry["shape"], start + begin, end - begin)


def _digest(stream: Any, kind: str, shape: list[int], begin: int, size: int) -> bytes:
    """Hash of a tensor's shape and of the values of its samples: the same in a type that holds them as exactly."""
    count = max(1, math.prod(shape))
    width = size // count
    digest = hashlib.sha256(repr(shape).encode())
    length = min(count, _SAMPLE_LENGTH)
    starts = list(range(0, count, _SAMPLE_LENGTH))
    if count > _SAMPLES * _SAMPLE_LENGTH:
        starts = [(count - length) * i // (_SAMPLES - 1) for i in range(_SAMPLES)]
    for first in starts:
        stream.seek(begin + first * width)
        values = stream.read(min(length, count - first) * width)
        if kind in _FLOATS and values:
            values = torch.frombuffer(bytearray(values), dtype=_FLOATS[kind]).float().numpy().tobytes()
        digest.update(values)
    return digest.digest()
