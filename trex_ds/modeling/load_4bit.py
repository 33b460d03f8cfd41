"""Loading a base model in 4 bits one tensor at a time, sharded by ZeRO-3 as it comes.

transformers loads a quantized model whole on every rank before DeepSpeed shards it. Here rank 0 alone reads,
one tensor at a time; it quantizes the linears' weights, and DeepSpeed hands every rank its shard of each
before the next is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from trex_ds.distributed import rank
from trex_ds.modeling.config import SAFETENSORS_FILES, weights_problem
from trex_ds.modeling.quantized import Linear4bit, pack, use_linears_in_4_bits

_SINGLE, _INDEX = SAFETENSORS_FILES


def load_in_4bit(location: str, revision: str | None, dtype: torch.dtype, attention: str) -> Any:
    """A causal language model whose linears, but for the output head, are in nf4; frozen, in evaluation mode.

    Sharded if a ZeRO-3 TrainingArguments is alive; else every process reads and quantizes it for itself.

    Args:
        location: a folder, or a hub id.
        revision: of the hub id.
        dtype: of all that is not in 4 bits, and of the computation.
        attention: transformers' name of the attention.

    Raises:
        ValueError: if the weights are no safetensors, are quantized already, or do not fit the model.
    """
    from transformers.integrations.deepspeed import deepspeed_config, is_deepspeed_zero3_enabled

    folder = weights_folder(location, revision)
    if problem := weights_problem(folder):
        raise ValueError(problem)
    model = _skeleton(folder, dtype, attention)
    ds_config = deepspeed_config() if is_deepspeed_zero3_enabled() else None
    read = _reader(_files_of(folder, model), dtype)
    shard = _sharder(ds_config)
    made: dict[int, nn.Parameter] = {}
    for path, module in list(model.named_modules()):
        for name, empty in list(module.named_parameters(recurse=False)):
            if id(empty) not in made:
                full = f"{path}.{name}" if path else name
                packed = isinstance(module, Linear4bit) and name == "weight"
                if ds_config is None or rank() == 0:
                    tensor = read(full)
                    if packed:
                        tensor = pack(tensor.t() if module.transposed else tensor, dtype)
                    assert tensor.shape == empty.shape, (full, tensor.shape, empty.shape)
                else:
                    tensor = torch.empty_like(empty, device=_device())
                made[id(empty)] = nn.Parameter(tensor, requires_grad=False)
                shard(made[id(empty)])
            setattr(module, name, made[id(empty)])
    _load_buffers(model, read)
    return model.eval()


def _load_buffers(model: nn.Module, read: Callable[..., Tensor]) -> None:
    """Buffers that were saved, in their own type, and the others as the model made them; whole on every rank."""
    saved = model.state_dict().keys()
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            full = f"{path}.{name}" if path else name
            setattr(module, name, read(full, buffer.dtype) if full in saved else buffer.to(_device()))


def weights_folder(location: str, revision: str | None) -> Path:
    """A saved model's folder: `location` itself, or where the hub's copy of it is."""
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "model*.safetensors"]
    return Path(snapshot_download(location, revision=revision, allow_patterns=patterns))


def _skeleton(folder: Path, dtype: torch.dtype, attention: str) -> Any:
    """The model without weights: parameters on the meta device, buffers (rotary frequencies) computed."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.modeling_utils import set_zero3_state

    config = AutoConfig.from_pretrained(folder)
    # Without set_zero3_state transformers would have DeepSpeed shard the empty parameters too.
    with init_empty_weights(include_buffers=False), set_zero3_state():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    use_linears_in_4_bits(model)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _files_of(folder: Path, model: nn.Module) -> dict[str, Path]:
    """File of each tensor of the model."""
    from safetensors import safe_open

    index = folder / _INDEX
    if index.is_file():
        found = {
            name: folder / file for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
        }
    else:
        with safe_open(folder / _SINGLE, framework="pt") as tensors:
            found = dict.fromkeys(tensors.keys(), folder / _SINGLE)
    parameters = [name for name, _ in model.named_parameters()]  # a tied tensor under its first name alone
    buffers = [name for name, _ in model.named_buffers() if name in model.state_dict()]
    wanted = parameters + buffers
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(
            f"{str(folder)!r} lacks {len(missing)} tensors of a {type(model).__name__}, {missing[0]} for one; where "
            "transformers renames or merges tensors as it loads them, use model.quantization: null"
        )
    return found


def _reader(files: dict[str, Path], dtype: torch.dtype) -> Callable[..., Tensor]:
    from safetensors import safe_open

    device = _device()

    def read(name: str, dtype: torch.dtype = dtype) -> Tensor:
        # Opened for each tensor: mapped pages are given back when it is closed.
        with safe_open(files[name], framework="pt") as tensors:
            return tensors.get_tensor(name).to(device=device, dtype=dtype, copy=True)

    return read


def _sharder(ds_config: dict[str, Any] | None) -> Callable[[nn.Parameter], object]:
    """Make the function with which DeepSpeed keeps this rank's shard of a parameter that rank 0 holds whole."""
    if ds_config is None:
        return lambda parameter: None
    import deepspeed

    first: list[nn.Parameter] = []

    def shard(parameter: nn.Parameter) -> None:
        if first:
            cast(Any, first[0]).convert_to_zero_parameters(param_list=[parameter])
        else:
            deepspeed.zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=ds_config)
            first.append(parameter)

    return shard


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
