"""transformers' Trainer, with intuition scores in float32, logits of answers only, and tokens counted."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from trex_ds.adapters.hooks import hooks_of_model
from trex_ds.adapters.prompt_tuning import embeddings_as_they_are
from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.distributed import gather_objects, sum_over_ranks
from trex_ds.files import open_to_readers
from trex_ds.protocols import CausalLM
from trex_ds.training.saving import is_sharded, whole_adapter

_CHECKSUM_FACTOR = 1_000_003  # odd, so that no batch is ever forgotten modulo 2^64


@dataclass(frozen=True)
class Seen:
    """What a trainer has trained on so far, all ranks together."""

    tokens: int
    """Tokens that are not padding."""
    checksum: str
    """Checksum of every rank's batches in their order: equal for runs that saw the same tokens in the same order."""


class TRexTrainer(Trainer):
    """Adds to the Trainer what this method needs and it does not do."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # `compute_loss` divides by num_items_in_batch, which the Trainer counts only for those that say so.
        self.model_accepts_loss_kwargs = True
        # Rows times length, tokens that are not padding, tokens with a loss: on the device, because
        # reading them each step would wait for it.
        self._token_counts = torch.zeros(3, dtype=torch.int64, device=self.args.device)
        self._all_token_counts = torch.zeros_like(self._token_counts)
        self._checksum = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self._counting_since = time.perf_counter()
        self._counting_from_step = 0

    def _prepare_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep intuition in float32: the Trainer casts floating inputs to the model's type."""
        intuition = {k: v.to(self.args.device) for k, v in inputs.items() if k == "intuition"}
        return super()._prepare_inputs({k: v for k, v in inputs.items() if k != "intuition"}) | intuition

    def compute_loss(
        self, model: CausalLM, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy summed over this batch's answer tokens, over those of the whole step on all ranks.

        The same for rows of one example (`Collator`) and of several (`PackedCollator`). Logits are computed
        where a token of an answer is to be predicted and nowhere else: with a large vocabulary and short
        answers those of the prompts would be a good part of a small model's work and most of its memory.
        """
        labels, mask = inputs.pop("labels"), inputs.pop("attention_mask")
        hooks = hooks_of_model(self.model)
        if "segment_ids" in inputs:
            inputs = hooks.packed(self.model, inputs)
        else:
            inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        # A label is predicted from the position before it.
        targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
        predicts = targets != IGNORED_LABEL
        targets = targets[predicts]
        inputs, predicts = hooks.placed(self.model, inputs, predicts)
        outputs = model(**{**inputs, "logits_to_keep": predicts, "use_cache": False})
        logits = outputs.logits
        if logits.dim() == 3:  # of a model that computes them everywhere
            logits = logits[predicts]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        # DeepSpeed averages gradients over the ranks, but the items are those of all ranks together.
        loss = loss / num_items_in_batch * self.accelerator.num_processes
        if self.model.training and (auxiliary := hooks.auxiliary_loss(self.model)) is not None:
            loss = loss + auxiliary.squeeze() / self.args.gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: CausalLM, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's step, counting tokens."""
        mask, labels = inputs["attention_mask"], inputs["labels"]
        counts = torch.stack(
            [torch.tensor(mask.numel(), device=mask.device), mask.sum(), (labels != IGNORED_LABEL).sum()]
        )
        self._token_counts += counts.to(self._token_counts.device)
        self._all_token_counts += counts.to(self._token_counts.device)
        ids = inputs["input_ids"].flatten()
        order = (ids * torch.arange(1, len(ids) + 1, device=ids.device)).sum()
        self._checksum = self._checksum * _CHECKSUM_FACTOR + order.to(self._checksum.device)  # wraps around
        loss = super().training_step(model, inputs, *args, **kwargs)
        hooks_of_model(self.model).after_backward(self.model)
        return loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The Trainer's; all ranks call it, and rank 0 writes.

        Under ZeRO-3 it would gather what is trained, and the adapter would lack what is its own but frozen.
        """
        if not is_sharded(self.model):
            super().save_model(output_dir, _internal_call)
            return
        with whole_adapter(self.model), embeddings_as_they_are(self.model):
            self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            open_to_readers(Path(output_dir or self.args.output_dir))

    def reset_token_clock(self) -> None:
        """Start a new interval of tokens per second, leaving out what happened since the last one."""
        self._token_counts.zero_()
        self._counting_since = time.perf_counter()
        self._counting_from_step = self.state.global_step

    def seen(self) -> Seen:
        """What this trainer has trained on, a job that it resumed left out; a collective."""
        parts = gather_objects(self._checksum.item())
        checksum = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        return Seen(int(sum_over_ranks(self._all_token_counts)[1]), checksum)

    def leave_out(self, seconds: float) -> None:
        """Count tokens per second without `seconds` of this interval, in which there was no training."""
        self._counting_since += seconds

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add speed to the step logs, tokens per second over all ranks; called on every rank.

        Raises:
            FloatingPointError: the loss is not finite; on every rank.
        """
        if "loss" in logs:
            padded, real, supervised = sum_over_ranks(self._token_counts).tolist()
            seconds = time.perf_counter() - self._counting_since
            logs["tokens_per_second"] = real / seconds
            logs["padded_tokens_per_second"] = padded / seconds
            logs["supervised_tokens_per_second"] = supervised / seconds
            logs["step_seconds"] = seconds / max(1, self.state.global_step - self._counting_from_step)
            self.reset_token_clock()
        super().log(logs, start_time)
        if not math.isfinite(logs.get("loss", 0.0)):
            raise FloatingPointError(
                f"the loss is {logs['loss']} at step {self.state.global_step}: training has diverged; lower "
                "training.learning_rate, or raise training.warmup_steps"
            )
