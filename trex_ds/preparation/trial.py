"""A recipe's model and adapter, tried on the meta device and on the model's tiny twin before anything is prepared."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from trex_ds.adapters.layer import RoutedLinear
from trex_ds.adapters.on_meta import adapted_on_meta
from trex_ds.adapters.peft_config import peft_config
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.targets import Coverage, coverage, target_problems
from trex_ds.config import ConfigError
from trex_ds.data.config import DataConfig
from trex_ds.methods.base import Method
from trex_ds.modeling.base import model_location, supported_attention
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.meta import base_on_meta
from trex_ds.modeling.mixers import read_without_a_call
from trex_ds.modeling.rows import PackedForm, Rows, rows_of
from trex_ds.modeling.twin import tiny_twin
from trex_ds.protocols import CausalLM, Tokenizer


@dataclass(frozen=True)
class Trial:
    """What a recipe's model and adapter were found to be."""

    rows: Rows
    """How the model takes rows."""
    coverage: Coverage
    """What the adapter adapts."""
    learned_positions: int | None
    """How many positions the model has an embedding for; None: any."""
    notes: list[str]
    """What the user should know, one line each."""


def try_model(
    model: ModelConfig,
    adapter: Method,
    data: DataConfig,
    tokenizer: Tokenizer,
    *,
    num_tasks: int,
    micro_batch_size: int,
    checkpointing: bool,
) -> Trial:
    """Find what would fail or go wrong while training; needs the base's config.json only, and no accelerator.

    Args:
        model: the base model.
        adapter: the method and its settings.
        data: how long rows are, and whether they are packed.
        tokenizer: of the base model.
        num_tasks: tasks that a method may learn apart.
        micro_batch_size: rows of a forward pass.
        checkpointing: whether activations are recomputed.

    Raises:
        ConfigError: with a line for every problem.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_location(model.name), revision=model.revision)
        attention = supported_attention(model)
        base = base_on_meta(config)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError([f"model.name: {model.name} cannot be used: {error}"]) from error
    notes = []
    if attention != model.attention:
        notes.append(f"model.attention: {config.model_type} has no {model.attention} attention; {attention} is used")
    positions = learned_positions(base)
    problems = _vocabulary_problems(tokenizer, base)
    if positions is not None and data.max_length > positions:
        problems.append(
            f"data.max_length: {data.max_length} tokens are more than the {positions} positions that "
            f"{model.name} has learned; set it to {positions} at most"
        )
    problems += _rotary_problems(data, micro_batch_size, base.config.get_text_config())
    method = peft_config(adapter)
    found: Coverage | None = None
    try:
        adapted, bare = adapted_on_meta(config, method, num_tasks)
    except (ValueError, NotImplementedError) as error:
        named = target_problems(base, method)
        problems += [f"adapter.{line}" for line in named] or [f"adapter: {error}"]
    else:
        converted = adapted.peft_config[adapted.active_adapter]
        # PEFT writes the names that "all-linear" stands for into the configuration.
        problems += [f"adapter.{line}" for line in target_problems(adapted, converted)]
        found = coverage(adapted, bare)
        problems += _read_problems(bare, found)
    rows = rows_of(base.config, attention)  # of the model that is made: of the text part alone, for some
    if rows.fault:
        problems.append(f"model.name: {rows.fault}; take another model")
    if not problems and isinstance(method, RoutedConfig):
        form = rows.packed if data.packing else None
        problems += _twin_problems(config, attention, method, form, checkpointing)
    if problems:
        raise ConfigError(problems)
    assert found is not None
    if data.packing and rows.packed is None:
        notes.append(f"data.packing: rows hold one example each, because {rows.reason}; micro_batch_size counts these")
    if found.adapted:
        notes.append(f"adapter: {adapter.method} adapts {found}")
    if experts := found.experts_left_out:
        why = f": {reason}" if (reason := adapter.leaves_experts) else ""
        notes.append(f"adapter: {adapter.method} leaves the experts as they are ({', '.join(experts)}){why}")
    return Trial(rows, found, positions, notes)


def learned_positions(model: CausalLM) -> int | None:
    """How many positions a model has an embedding or a table for; None where they are computed.

    Args:
        model: a causal language model; what it has to see images or to hear does not count.
    """
    if model.config.model_type == "mpt":
        return model.config.max_seq_len  # its biases are made for so many
    text = {model.config.model_type, model.config.get_text_config().model_type}
    others = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel) and module.config.model_type not in text
    )
    words = model.get_input_embeddings()
    for name, module in model.named_modules():
        leaf = name.rsplit(".", 1)[-1]
        if f"{name}.".startswith(others):
            continue
        if isinstance(module, nn.Embedding) and module is not words and ("pos" in leaf or leaf == "wpe"):
            return module.num_embeddings - getattr(module, "offset", 0)
        for own, table in module.named_buffers(recurse=False):
            if "pos" in own and table.dim() == 2 and table.is_floating_point():
                return len(table)
    return None


def _vocabulary_problems(tokenizer: Tokenizer, model: CausalLM) -> list[str]:
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return []
    shown = ", ".join(f"{token!r} ({number})" for token, number in sorted(beyond.items(), key=lambda pair: pair[1])[:3])
    return [
        f"model.name: the tokenizer has {len(beyond)} tokens that the model, with {rows} rows of embeddings, does not "
        f"know: {shown}; remove them from the tokenizer, or save the model after resize_token_embeddings"
    ]


def _rotary_problems(data: DataConfig, micro_batch_size: int, config: Any) -> list[str]:
    """A line if the frequencies of all rows of a batch change with the longest of them."""
    given = getattr(config, "rope_parameters", None) or {}
    limits = []
    for rope in (given, *(value for value in given.values() if isinstance(value, dict))):
        if rope.get("rope_type") == "dynamic":
            limits.append(config.max_position_embeddings)
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
    alone = not data.packing and micro_batch_size == 1
    if not limits or data.max_length <= min(limits) or alone:
        return []
    return [
        f"data.max_length: an example of more than {min(limits)} tokens changes the rotary frequencies of all others "
        f"in its batch in a {config.model_type}, so what these learn would depend on it; set it to {min(limits)} at "
        "most, or data.packing to false and training.micro_batch_size to 1"
    ]


def _read_problems(base: nn.Module, found: Coverage) -> list[str]:
    """A line if linears are adapted whose weights are read past them, which some methods of PEFT do not notice."""
    read = set()
    for path in found.adapted:
        parent, _, name = path.removesuffix(".weight").rpartition(".")
        if name in read_without_a_call(base.get_submodule(parent)):
            read.add(name)
    if not read:
        return []
    return [
        f"adapter: a Mamba mixer reads the weights of {', '.join(sorted(read))} without calling them, so an adapter "
        f"there would have no effect; set adapter.exclude_modules: {sorted(read)}"
    ]


def _twin_problems(
    config: Any, attention: str, adapter: PeftConfig, form: PackedForm | None, checkpointing: bool
) -> list[str]:
    """What a training step of a tiny model of the architecture shows to be wrong."""
    if "flash" in attention:  # needs a GPU; with respect to linears all kinds are the same
        attention = "eager"
    twin = tiny_twin(config, attention)
    if twin is None:
        return []
    adapter = copy.deepcopy(adapter)
    assert isinstance(adapter, RoutedConfig)
    adapter.layers_to_transform = None  # which the twin may not have
    adapter.attach_placeholders()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = get_peft_model(twin, adapter, autocast_adapter_dtype=False).train()
            if checkpointing:
                model.enable_input_require_grads()
                model.gradient_checkpointing_enable()
            _step(model, adapter, form is not None)
    except Exception as error:  # whatever it is, training would end in it
        if not any(isinstance(module, RoutedLinear) for module in twin.modules()):
            return []  # named by layers that the twin does not have
        return [f"adapter: a {config.model_type} cannot be trained with it: {error}"]
    layers = [layer for layer in model.modules() if isinstance(layer, RoutedLinear)]
    silent = [layer.name for layer in layers if layer.trex_B[model.active_adapter].grad is None]
    if not silent:
        return []
    leaves = sorted({name.rsplit(".", 1)[-1] for name in silent})
    excluded = _names_of_these_alone(silent, {layer.name for layer in layers} - {*silent})
    return [
        f"adapter: a {config.model_type} does not call {', '.join(leaves)} ({silent[0]} for one), but reads its "
        f"weights or leaves it out, so an adapter there would learn nothing; set adapter.exclude_modules: {excluded!r}"
    ]


def _names_of_these_alone(names: Sequence[str], others: Collection[str]) -> list[str] | str:
    """What excludes linears by their names and leaves `others` in: last parts, or a regular expression."""
    leaves = sorted({name.rsplit(".", 1)[-1] for name in names})
    if not {*leaves} & {name.rsplit(".", 1)[-1] for name in others}:
        return leaves
    parents = set()
    for name in names:
        parts = name.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        # The outermost module with nothing else in it, which every layer has under one name.
        whole = next((path for path in paths if not any(other.startswith(f"{path}.") for other in others)), name)
        parents.add(whole.rsplit(".", 1)[-1])
    # Without backslashes, which quotes in a recipe may double.
    expression = f"(.*[.])?({'|'.join(sorted(parents))})([.].*)?"
    return [*names] if any(re.fullmatch(expression, other) for other in others) else expression


def _step(model: CausalLM, adapter: RoutedConfig, packed: bool) -> None:
    """A forward and a backward pass of two rows, as the trainer does them."""
    ids = torch.arange(3, 27).view(2, 12)
    arguments: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if packed:
        arguments["position_ids"] = torch.cat((torch.arange(5), torch.arange(7))).repeat(2, 1)
        arguments["segment_ids"] = (arguments["position_ids"] == 0).cumsum(1) - 1
    else:
        arguments["position_ids"] = torch.arange(12).repeat(2, 1)
        arguments["attention_mask"] = torch.ones_like(ids)
    if adapter.needs_intuition:
        shape = (2, 2) if packed else (2,)
        arguments["intuition"] = torch.rand(*shape, adapter.num_clusters)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    keep[0, 3:], keep[1, 7:] = True, True
    logits = model(**arguments, logits_to_keep=keep).logits
    logits.float().logsumexp(-1).sum().backward()
