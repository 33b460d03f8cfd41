"""A model as lm-evaluation-harness takes it: an LM whose requests carry their intuition."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
    resolve_max_length,
)
from lm_eval.models.utils_hf import stop_sequences_criteria
from torch import Tensor

from trex_ds.data.collator import Collator
from trex_ds.data.tokenizing import read_texts
from trex_ds.distributed import rank
from trex_ds.evaluation.batches import length_batches
from trex_ds.evaluation.dealing import deal_and_gather
from trex_ds.evaluation.generation import generation_ends, without_ends
from trex_ds.protocols import CausalLM, Tokenizer

logger = logging.getLogger(__name__)

DEFAULT_ANSWER_LENGTH = 256
"""Most new tokens of an answer where a task says nothing, as lm-eval has it."""

ContextIntuition = Callable[[Sequence[str]], Tensor]
"""Raw cosines (len(contexts), num_clusters) of context texts; every rank calls it with the same texts."""

TokenRequest = tuple[tuple[str, str], list[int], list[int]]
"""Context and continuation, first as texts, then as token ids of each."""


@dataclass
class _Pass:
    """One row of a forward pass, and all the requests that it answers."""

    context: str
    input_ids: tuple[int, ...]
    wanted: list[tuple[int, list[int]]] = field(default_factory=list)
    """Position of a request, and the ids of its continuation, which `input_ids` has but for the last."""

    @property
    def keep(self) -> int:
        """Number of last positions whose logits are needed."""
        return max(len(ids) for _, ids in self.wanted)


@dataclass(frozen=True)
class _Prompt:
    """One context to continue."""

    position: int
    context: str
    input_ids: list[int]
    is_cut: bool
    """Whether the context had more tokens."""
    until: list[str]
    max_new_tokens: int
    others: dict[str, Any]
    """Further settings of the task for `generate`."""


class TRexLM(TemplateLM):
    """Log-likelihoods and greedy generation over all ranks, with each context's own intuition.

    To lm-eval every rank is the only one: each builds all requests, gets all results, and they are
    the same. The work is dealt within the methods, batch by batch, so that results do not depend on
    the number of ranks and each request counts once.

    Args:
        model: a causal language model of transformers, bare or of PEFT, in evaluation mode.
        tokenizer: the model's.
        intuition: gives the contexts' cosines; None for a model that takes no `intuition`.
        batch_size: rows of a forward pass.
        device: where the model computes.
        max_length: tokens of context and continuation at most, longer contexts are cut on the left;
            None: what the model was made for.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        intuition: ContextIntuition | None,
        *,
        batch_size: int,
        device: torch.device,
        max_length: int | None = None,
    ):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_length or resolve_max_length(model.config, tokenizer)
        self._intuition = intuition
        self._device = device

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer, as lm-eval records it."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as one text; without the generation prompt its last message is left open."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; with the tokenizer's own special tokens, unless told otherwise or `string` begins with them.

        Without an end of sequence that the tokenizer adds: a continuation follows.
        """
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        (ids,) = read_texts(self.tokenizer, [string], "alone" if add_special_tokens else "written")
        return ids

    def _loglikelihood_tokens(self, requests: list[TokenRequest], **_: Any) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether greedy decoding gives it."""
        passes: dict[tuple[str, tuple[int, ...]], _Pass] = {}
        cut = 0
        for position, ((context, text), context_ids, ids) in enumerate(requests):
            if not 0 < len(ids) <= self.max_length:
                raise ValueError(
                    f"a continuation has {len(ids)} tokens of its own, and the model takes 1 to {self.max_length}; it "
                    f"is {text[:80]!r} after {context[-80:]!r}"
                )
            # A context of white space alone has no tokens left: lm-eval counts it to the continuation.
            whole = (context_ids or [self.prefix_token_id]) + ids
            cut += len(whole) > self.max_length + 1
            # The last token is only predicted: continuations that differ in it alone share a pass.
            row = tuple(whole[-(self.max_length + 1) :][:-1])
            passes.setdefault((context, row), _Pass(context, row)).wanted.append((position, ids))
        self._say_what_is_cut(cut, len(requests))
        batches = self._batches(list(passes.values()))
        cosines = self._intuition_of([one.context for batch in batches for one in batch])
        answered = deal_and_gather(batches, lambda batch: self._answer(batch, cosines), "log-likelihoods")
        results = {position: result for found in answered for position, result in found}
        return [results[position] for position in range(len(requests))]

    @torch.no_grad()
    def _answer(self, batch: Sequence[_Pass], cosines: dict[str, Tensor]) -> list[list[tuple[int, tuple[float, bool]]]]:
        inputs = self._inputs([one.input_ids for one in batch], [one.context for one in batch], cosines)
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        # The vocabulary's matrix is most of a small model's work: only where a continuation is predicted.
        keep = max(one.keep for one in batch)
        logits = self.model(**inputs, position_ids=positions, logits_to_keep=keep, use_cache=False).logits
        greedy = logits.argmax(-1).tolist()
        normalizer = logits.float().logsumexp(-1)
        found: list[list[tuple[int, tuple[float, bool]]]] = []
        for row, one in enumerate(batch):
            found.append([])
            for position, ids in one.wanted:
                target = torch.tensor(ids, device=logits.device)
                picked = logits[row, -len(ids) :].float().gather(1, target[:, None])[:, 0]
                value = (picked - normalizer[row, -len(ids) :]).sum().item()
                found[row].append((position, (value, greedy[row][-len(ids) :] == ids)))
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Refuse whole texts, which have no prompt and therefore no intuition.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{len(requests)} requests measure the perplexity of whole texts, which have no prompt for intuition to be "
            "taken from; leave the task out"
        )

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations up to one of the task's stop strings or one of `generation_ends`.

        Raises:
            ValueError: the task asks to sample, or for more tokens than the model takes.
        """
        groups: dict[str, list[_Prompt]] = {}
        for position, (context, settings) in enumerate(request.args for request in requests):
            groups.setdefault(json.dumps(settings, sort_keys=True), []).append(
                self._prompt(position, context, settings)
            )
        prompts = [prompt for group in groups.values() for prompt in group]
        self._say_what_is_cut(sum(prompt.is_cut for prompt in prompts), len(prompts))
        batches = [batch for group in groups.values() for batch in self._batches(group)]
        cosines = self._intuition_of([prompt.context for batch in batches for prompt in batch])
        texts = deal_and_gather(batches, lambda batch: self._generate(batch, cosines), "answers")
        order = [prompt.position for batch in batches for prompt in batch]
        found = dict(zip(order, texts, strict=True))
        return [found[position] for position in range(len(requests))]

    def _prompt(self, position: int, context: str, settings: dict[str, Any]) -> _Prompt:
        others = dict(normalize_gen_kwargs(settings, default_max_gen_toks=DEFAULT_ANSWER_LENGTH))
        until = handle_stop_sequences(others.pop("until"), eos=self.tokenizer.decode(self.eot_token_id))
        length = others.pop("max_gen_toks")
        if others.pop("do_sample"):
            raise ValueError(f"the task asks to sample ({settings}); only greedy decoding gives the same on every rank")
        others.pop("temperature", None)
        room = self.max_length - length
        if room < 1:
            raise ValueError(
                f"the task asks for up to {length} new tokens, but the model takes {self.max_length} with the context"
            )
        ids = self.tok_encode(context)
        return _Prompt(position, context, ids[-room:], len(ids) > room, until, length, others)

    def _say_what_is_cut(self, count: int, total: int) -> None:
        if count and rank() == 0:
            logger.warning(
                "%d of %d requests have more than the %d tokens that the model takes: contexts are cut on the left",
                *(count, total, self.max_length),
            )

    @torch.no_grad()
    def _generate(self, batch: Sequence[_Prompt], cosines: dict[str, Tensor]) -> list[str]:
        first, ends = batch[0], generation_ends(self.model, self.tokenizer)
        inputs = self._inputs([prompt.input_ids for prompt in batch], [prompt.context for prompt in batch], cosines)
        width = inputs["input_ids"].shape[1]
        out = self.model.generate(
            **inputs,
            max_new_tokens=first.max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=ends,
            stopping_criteria=stop_sequences_criteria(self.tokenizer, first.until, width, len(batch)),
            **first.others,
        )
        new = [without_ends(row, ends) for row in out[:, width:].tolist()]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [postprocess_generated_text(text, first.until, None) for text in texts]

    def _batches(self, rows: list[Any]) -> list[list[Any]]:
        """Long ones first: rows of a batch are of like length, and too large a batch fails at once."""
        ordered = sorted(rows, key=lambda row: tuple(row.input_ids))
        batches = length_batches(self.model, [row.input_ids for row in ordered], self.batch_size)
        return [[ordered[position] for position in batch] for batch in batches]

    def _intuition_of(self, contexts: list[str]) -> dict[str, Tensor]:
        if self._intuition is None:
            return {}
        distinct = list(dict.fromkeys(contexts))
        return dict(zip(distinct, self._intuition(distinct), strict=True))

    def _inputs(
        self, rows: Sequence[Sequence[int]], contexts: Sequence[str], cosines: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The model's arguments: ids and mask (batch, seq), padded on the left, and intuition (batch, num_clusters)."""
        items: list[dict[str, Any]] = [{"input_ids": list(row)} for row in rows]
        if self._intuition is not None:
            for item, context in zip(items, contexts, strict=True):
                item["intuition"] = cosines[context]
        inputs = Collator(self.tokenizer.pad_token_id)(items)
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}
