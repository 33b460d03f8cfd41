"""Accuracy before, while and after training, and the adapter that did best."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trex_ds.distributed import on_rank_zero
from trex_ds.evaluation.accuracy import Evaluation
from trex_ds.evaluation.evaluate import evaluate
from trex_ds.files import write_json
from trex_ds.modeling.zero3 import whole_weights
from trex_ds.tasks.harness.loading import load_kept
from trex_ds.tracking.tracker import Tracker
from trex_ds.training.saving import load_adapter, save_adapter
from trex_ds.training.trainer import TRexTrainer

if TYPE_CHECKING:
    from trex_ds.training.prepared import Prepared
    from trex_ds.training.recipe import Recipe

BEST_FOLDER = "best"
_BEST_FILE = "best.json"


class Measurements:
    """Evaluates the model of a trainer; its methods are collectives."""

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        tracker: Tracker,
        trainer: TRexTrainer,
        device: torch.device,
        base: Evaluation | None,
    ):
        self._recipe = recipe
        self._prepared = prepared
        self._tracker = tracker
        self._trainer = trainer
        self._model = trainer.model
        self._device = device
        self._base = base
        self._harness_tasks = load_kept(prepared.harness_data)
        if self._harness_tasks is not None:
            from trex_ds.evaluation.harness import check_room

            check_room(self._harness_tasks, trainer.model, prepared.tokenizer)
        self._output = Path(recipe.output_dir)
        self._best = self._read_best()

    def base(self) -> Evaluation:
        """Measure the base model on all evaluation examples; a known result is used again."""
        if self._base is not None:
            base = self._marked(self._base)
            self._record(base, 0, "eval", "base")
            return base
        return self._measure(self._prepared.questions, 0, "eval", "base", "base model", use_adapter=False)

    def held_out(self, step: int) -> None:
        """The adapter on the held-out examples; it is kept if none was better."""
        if step == self._best["last_step"]:
            return
        result = self._measure(self._prepared.held_out, step, "held_out", f"held_out_{step}", f"step {step}, held out")
        mean = result.mean().value
        self._best["last_step"] = step
        if mean > self._best["mean"]:
            save_adapter(self._trainer, self._recipe, self._output / BEST_FOLDER)
            self._best |= {"mean": mean, "step": step}
        on_rank_zero(self._write_best)

    def final(self, step: int) -> Evaluation:
        """The adapter on all evaluation examples: the best by the held-out ones if there are any, else the last."""
        if self._prepared.held_out:
            self.held_out(step)
            if self._best["step"] != step:
                load_adapter(self._model, self._output / BEST_FOLDER)
            self._tracker.log_metrics({"held_out/best_step": self._best["step"]}, step)
        return self._measure(self._prepared.questions, step, "eval", str(step), f"step {self._best['step'] or step}")

    def _measure(
        self, questions: Any, step: int, prefix: str, file: str, description: str, use_adapter: bool = True
    ) -> Evaluation:
        config, intuition = self._recipe.evaluation, self._prepared.intuition
        started = time.perf_counter()
        with whole_weights(self._trainer.model_wrapped) if config.gather_weights else nullcontext():
            result = evaluate(
                self._model,
                self._prepared.tokenizer,
                questions,
                config,
                self._device,
                f"accuracy, {description}",
                use_adapter=use_adapter,
                harness_tasks=self._harness_tasks,
                context_intuition=intuition.of if intuition is not None else None,
            )
        result = self._marked(result)
        self._record(result, step, prefix, file)
        self._trainer.leave_out(time.perf_counter() - started)
        return result

    def _marked(self, result: Evaluation) -> Evaluation:
        """Add to a result the names of the tasks that no row is trained on."""
        names = {item.task for item in result.items}
        return replace(result, untrained=frozenset(name for name in names if not self._prepared.mixture.get(name)))

    def _record(self, result: Evaluation, step: int, prefix: str, file: str) -> None:
        on_rank_zero(lambda: result.save(self._output / f"evaluation_{file}.json"))
        self._tracker.log_metrics(result.metrics(prefix), step)

    def _read_best(self) -> dict[str, Any]:
        """What an interrupted job knew already; a new one knows nothing."""
        file = self._output / _BEST_FILE
        resumed = self._recipe.training.resume
        return on_rank_zero(
            lambda: (
                json.loads(file.read_text(encoding="utf-8"))
                if resumed and file.is_file()
                else {"mean": -math.inf, "step": None, "last_step": None}
            )
        )

    def _write_best(self) -> None:
        write_json(self._output / _BEST_FILE, self._best)
