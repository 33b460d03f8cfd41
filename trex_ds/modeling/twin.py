"""The tiny twin of a model: its architecture with few layers and narrow ones, to try on any CPU what the model does."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

VOCABULARY = 128
"""Token ids that a twin has."""
WINDOW = 8
"""Tokens that a twin's local attention sees, so that short rows are long enough to leave it."""

_LAYERS = 8  # more than the period of any pattern of layers that is known
_EXPERTS = 4
_LEAST_HIDDEN = 64
_MOST_PARAMETERS = 200_000_000

_WIDTH = re.compile(
    r"^(d_model|d_inner|d_ff|dff|dim_ff|n_embd|n_inner|n_embed|kv_channels|lru_width|emb_dim|.*_width)$"
    r"|.*(hidden|intermediate|ffn|feed_forward|embedding|embed|attention_head|state)_(dim|size)(_mlp|_per_layer_input)?$"
    r"|.*(ffn_dim|ffn_size|head_dim|headdim|d_head|d_state|d_ssm|lora_rank|proj_dim|dim_head|dim_model|rotary_dim)$"
)
_HEAD = re.compile(r".*(head_dim|headdim|d_head|dim_head|rotary_dim|attention_head_size|kv_channels)$")
_NUMBER_OF_HEADS = re.compile(
    r"^(num_attention_heads|n_heads?|num_heads|attention_heads|(de|en)coder_attention_heads)$"
)
_NUMBER_OF_LAYERS = re.compile(
    r"^(num_hidden_layers|n_layers?|num_layers|num_(de|en)coder_layers|(de|en)coder_layers|max_window_layers)$"
)
_NUMBER_OF_LAST_LAYERS = re.compile(r"^num_kv_shared_layers$")
_NUMBER_OF_EXPERTS = re.compile(r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts|zero_expert_num)$")
_EXPERTS_A_TOKEN = re.compile(r"^(num_experts_per_tok(en)?|moe_topk|moe_k|moe_top_k|top_k_experts)$")
_GROUPS_OF_EXPERTS = re.compile(r"^(n_group|topk_group|num_expert_group)$")
_WINDOW = re.compile(
    r"^(sliding_window(_size)?|attention_chunk_size|window_size|attention_window_size|local_attention"
    r"|(mamba_)?chunk_size)$"
)


def tiny_twin(config: Any, attention: str) -> Any | None:
    """A causal language model of the architecture that `config` describes, tiny, in float32, with random weights.

    Layers of every kind that the model has occur in it. Its weights are large, so that what a token sees
    shows in its logits; they are the same in every process. Torch's own generator is left as it was.

    Args:
        config: transformers' configuration of the model; it is not changed.
        attention: transformers' name of the attention.

    Returns:
        The model in evaluation mode, on the CPU; None if none could be made.
    """
    for candidate in _smaller(config):
        if (model := _made(candidate, attention)) is not None:
            return model
    return None


def _made(config: dict[str, Any] | Any, attention: str) -> Any | None:
    from transformers import AutoModelForCausalLM
    from transformers.modeling_utils import set_zero3_state

    def build(device: str) -> Any:
        with torch.device(device), set_zero3_state():  # no DeepSpeed that is active may shard it
            return AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=torch.float32, attn_implementation=attention
            )

    try:
        if sum(parameter.numel() for parameter in build("meta").parameters()) > _MOST_PARAMETERS:
            return None
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = build("cpu").eval()
            for parameter in model.parameters():
                if parameter.dim() >= 2:
                    parameter.mul_(4.0)
            model(input_ids=torch.arange(3, 3 + WINDOW)[None], use_cache=False)  # sizes may not go together
    except Exception:  # what an architecture asks of its sizes is only known to its own code
        return None
    model.config.use_cache = False
    return model


def _smaller(config: Any) -> Iterator[Any]:
    """Configurations of the same architecture, the smallest first."""
    for layers in (_LAYERS, None):
        for least in (4, 8, 16, None):
            values = _shrunk(config.to_dict(), layers, least)
            try:
                smaller = type(config)(**values)
            except Exception:  # as above
                continue
            yield smaller


def _shrunk(values: dict[str, Any], most_layers: int | None, least_head: int | None) -> dict[str, Any]:
    """The values of a configuration with smaller sizes.

    All widths are divided by one number, so that what has to be the product of others still is.

    Args:
        values: of a configuration, or of a part of one.
        most_layers: how many layers are left; None: all.
        least_head: width of a head at least; None: widths stay.
    """
    layers = next((v for k, v in values.items() if _NUMBER_OF_LAYERS.match(k) and isinstance(v, int)), 0)
    kept = min(layers, most_layers) if most_layers else layers
    for kinds in (v for v in values.values() if isinstance(v, list) and layers and len(v) == layers):
        kept = max(kept, *(kinds.index(kind) + 1 for kind in kinds))
    divisor = _divisor(values, least_head)
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            shrink = partial(_shrunk, most_layers=most_layers, least_head=least_head)
            found[name] = _plain_rotation(value) if "rope" in name else shrink(value) if "config" in name else value
        elif isinstance(value, list) and layers and len(value) == layers:
            found[name] = value[:kept]
        elif isinstance(value, bool) or not isinstance(value, int):
            found[name] = value
        else:
            found[name] = _smaller_number(name, value, kept, divisor)
    for name in ("quantization_config", "transformers_version", "architectures", "auto_map", "dtype"):
        found.pop(name, None)
    return found


def _smaller_number(name: str, value: int, layers: int, divisor: int) -> int | None:
    if name.endswith("vocab_size") or name == "vocab_size_per_layer_input":
        return VOCABULARY
    if name.endswith(("token_id", "token_index", "padding_idx")):
        return min(value, 2)
    for pattern, most in (
        (_NUMBER_OF_LAYERS, layers),
        (_NUMBER_OF_LAST_LAYERS, layers // 2),
        (_NUMBER_OF_EXPERTS, _EXPERTS),
        (_EXPERTS_A_TOKEN, 2),
        (_GROUPS_OF_EXPERTS, 1),
        (_WINDOW, WINDOW),
    ):
        if pattern.match(name):
            return min(value, most)
    return value // divisor if _WIDTH.match(name) else value


def _divisor(values: dict[str, Any], least_head: int | None) -> int:
    if least_head is None:
        return 1
    numbers = {k: v for k, v in values.items() if isinstance(v, int) and not isinstance(v, bool)}
    widths = [v for k, v in numbers.items() if _WIDTH.match(k) and v]
    heads = [v for k, v in numbers.items() if _HEAD.match(k) and v]
    hidden = next((v for k, v in numbers.items() if k in ("hidden_size", "d_model", "n_embd")), 0)
    number = next((v for k, v in numbers.items() if _NUMBER_OF_HEADS.match(k)), 0)
    if not heads and hidden and number and hidden % number == 0:
        heads = [hidden // number]
    divisor = 1
    while (
        all(head // (2 * divisor) >= least_head for head in heads)
        and not any(v % (4 * divisor) for v in (*widths, *heads))
        and hidden // (2 * divisor) >= _LEAST_HIDDEN
    ):
        divisor *= 2
    return divisor


def _plain_rotation(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings without factors for each pair of a head's width, because the width differs here."""
    if any(isinstance(value, dict) for value in rope.values()):
        return {name: _plain_rotation(value) if isinstance(value, dict) else value for name, value in rope.items()}
    kept = {name: value for name, value in rope.items() if not isinstance(value, list)}
    return kept if kept == rope else {**kept, "rope_type": "default"}
