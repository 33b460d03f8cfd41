"""Tiny random models of many architectures."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

_WIDE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_WINDOW = {"head_dim": 8, "sliding_window": 6}

FAMILIES: dict[str, dict[str, Any]] = {
    "biogpt": {**_WIDE, "activation_dropout": 0.0, "layerdrop": 0.0},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "cohere": _WIDE,
    "cohere2": {**_WIDE, **_WINDOW, "num_hidden_layers": 4},
    "deepseek_v3": {
        **_WIDE,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False},
    "falcon_h1": {
        **_WIDE,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
    },
    "gemma": {**_WIDE, "head_dim": 8},
    "gemma2": {**_WIDE, **_WINDOW},
    "gemma3_text": {**_WIDE, **_WINDOW, "num_hidden_layers": 6},
    "gpt2": _GPT,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 128,
        "window_size": 6,
    },
    "gpt_neox": _WIDE,
    "gpt_oss": {**_WIDE, **_WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gptj": {**_GPT, "rotary_dim": 4},
    "granite": {**_WIDE, "logits_scaling": 3.0, "residual_multiplier": 0.5},
    "jamba": {
        **_WIDE,
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "lfm2": {**_WIDE, "layer_types": ["conv", "full_attention"]},
    "llama": _WIDE,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "mistral": {**_WIDE, "sliding_window": 6},
    "mixtral": {**_WIDE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "olmo2": _WIDE,
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "word_embed_proj_dim": 32,
    },
    "phi": {**_WIDE, "num_key_value_heads": 4},
    "phi3": _WIDE,
    "qwen2": _WIDE,
    "qwen2_moe": {**_WIDE, **_EXPERTS, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1},
    "qwen3": {**_WIDE, "head_dim": 8},
    "qwen3_moe": {**_WIDE, **_EXPERTS, "head_dim": 8, "decoder_sparse_step": 1},
    "qwen3_next": {
        **_WIDE,
        **_EXPERTS,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "shared_expert_intermediate_size": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "recurrent_gemma": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "lru_width": 32,
        "attention_window_size": 32,
    },
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "context_length": 128},
    "stablelm": _WIDE,
    "starcoder2": {**_WIDE, "sliding_window": None},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 128},
}
"""Sizes of a tiny model by transformers' model type."""


@cache
def family_config(name: str) -> Any:
    """The tiny configuration of a family, without dropout."""
    own = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(name, **own, **FAMILIES[name])
    for field, value in config.to_dict().items():
        if isinstance(value, float) and ("dropout" in field or "pdrop" in field or field.endswith("drop")):
            setattr(config, field, 0.0)
    return config


def family_model(name: str, attention: str = "eager") -> Any:
    """A random model with weights large enough for contexts to matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family_config(name), dtype=torch.float32, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3.0)
    return model.requires_grad_(False)
