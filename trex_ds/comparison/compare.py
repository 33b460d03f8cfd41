"""The comparison: methods times seeds, one after another in one process group, and the results after each."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trex_ds.adapters.counts import model_config
from trex_ds.adapters.peft_config import peft_config
from trex_ds.comparison.config import EQUAL_LORA, CompareRecipe
from trex_ds.comparison.equal_lora import equal_lora, trainable_parameters
from trex_ds.comparison.output import (
    PLOT_FILE,
    REPORT_FILE,
    RESULTS_FILE,
    SCORES_FILE,
    earlier_mlflow_run,
    print_results,
    write_results,
    write_scores,
)
from trex_ds.comparison.places import check_places
from trex_ds.comparison.results import Results, evaluations_of, finished_runs, results_of
from trex_ds.comparison.runs import Run, execute, in_order, states_of
from trex_ds.comparison.state import RunState
from trex_ds.comparison.tuning import Choice, choose, tuning_run
from trex_ds.config import ConfigError, flatten, to_dict
from trex_ds.distributed import on_rank_zero, rank
from trex_ds.evaluation.accuracy import Evaluation
from trex_ds.tracking.origin import git_commit, recipe_hash
from trex_ds.tracking.tracker import Tracker
from trex_ds.training import job
from trex_ds.training.launched import launched
from trex_ds.training.prepared import prepare

log = logging.getLogger(__name__)


def compare(recipe: CompareRecipe) -> Results:
    """Do the runs of the comparison that are not done yet; every rank of the launch calls it.

    Writes to `recipe.output_dir` a folder for each run, and after each run `comparison.json`, `comparison.md`
    and `pareto.png`. A run that fails on all ranks is recorded as failed, and the others go on.

    Raises:
        ConfigError: the data cannot be used, or the folder holds other runs than these.
    """
    with launched(recipe) as device:
        return _Comparison(recipe, device).run()


class _Comparison:
    def __init__(self, recipe: CompareRecipe, device: torch.device):
        self._recipe = recipe
        self._device = device
        self._output = Path(recipe.output_dir)
        self._methods = _with_control(recipe)
        self._tracker = Tracker(
            recipe.tracking,
            self._output,
            enabled=rank() == 0,
            run_id=on_rank_zero(lambda: earlier_mlflow_run(self._output)),
        )
        self._choices: dict[str, Choice] = {}
        self._failed_choices: dict[str, str] = {}
        self._runs: list[Run] = []
        self._states: dict[Path, RunState] = {}

    def run(self) -> Results:
        candidates = self._candidates()
        states = states_of(candidates, self._recipe.retry_failed)
        # Asked before anything is trained: the final runs whose learning rate is known already.
        self._set_choices(candidates, states, final=False)
        self._plan()
        if any(state.status in ("pending", "begun") for state in (*states, *self._states.values())):
            prepare((candidates or self._runs)[0].recipe, self._device)  # unusable data would fail every run
        with self._tracker:
            self._log_origin()
            known = dict(zip([run.folder for run in candidates], states, strict=True))
            for run, state in in_order(candidates, states):
                known[run.folder] = execute(run, state, lambda run=run: self._tune(run))  # type: ignore[misc]
                self._report()
            self._set_choices(candidates, [known[run.folder] for run in candidates], final=True)
            self._plan()
            results = self._report()
            for run, state in in_order(self._runs, [self._states[run.folder] for run in self._runs]):
                self._states[run.folder] = execute(run, state, lambda run=run: self._train(run))  # type: ignore[misc]
                results = self._report()
        if rank() == 0:
            print_results(results, self._output, self._tracker.describe())
        return results

    def _candidates(self) -> list[Run]:
        """The short trainings that choose learning rates."""
        tuning = self._recipe.tuning
        if tuning is None:
            return []
        steps = dataclasses.replace(self._recipe.training, max_steps=tuning.max_steps)
        return [
            self._make_run(name, self._recipe.seeds[0], rate, f"tuning/lr_{rate}", steps)
            for name in self._methods
            for rate in tuning.learning_rates
        ]

    def _plan(self) -> None:
        """The final runs of all methods that have a learning rate, and what is known of them."""
        self._runs = [
            self._make_run(name, seed, self._choices[name].learning_rate, f"seed_{seed}", self._recipe.training)
            for seed in self._recipe.seeds  # all methods with the first seed, so that something can be compared soon
            for name in self._methods
            if name in self._choices
        ]
        states = states_of(self._runs, self._recipe.retry_failed)
        self._states = dict(zip([run.folder for run in self._runs], states, strict=True))

    def _make_run(self, method: str, seed: int, rate: float, folder: str, training: Any) -> Run:
        child = self._recipe.child(
            self._methods[method],
            seed,
            output_dir=str(self._output / method / folder),
            training=dataclasses.replace(training, learning_rate=rate),
            tracking=dataclasses.replace(self._recipe.tracking, run_name=f"{method} {folder}".replace("_", " ")),
        )
        return Run(method, seed, child)

    def _set_choices(self, candidates: list[Run], states: list[RunState], final: bool) -> None:
        """The learning rates of the methods whose candidates are all done; of all methods if `final`."""
        for name in self._methods:
            if self._recipe.tuning is None:
                self._choices[name] = Choice(self._recipe.training.learning_rate, {})
                continue
            own = [(run, state) for run, state in zip(candidates, states, strict=True) if run.method == name]
            if not final and any(state.status not in ("finished", "failed") for _, state in own):
                continue
            losses = {run.recipe.training.learning_rate: state.result.get("loss") for run, state in own}
            errors = {run.recipe.training.learning_rate: state.error for run, state in own if state.error}
            try:
                self._choices[name] = choose(losses, errors)
            except ValueError as error:
                self._failed_choices[name] = str(error)

    def _tune(self, run: Run) -> Mapping[str, Any]:
        return {"loss": tuning_run(run.recipe, self._device, self._context(run, "tuning"))}

    def _train(self, run: Run) -> Mapping[str, Any]:
        context = self._context(run, "final")
        summary = job.run(run.recipe, self._device, dataclasses.replace(context, base=self._base()))
        for other, result in finished_runs(self._runs, self._states):
            seen = (result["tokens_seen"], result["data_checksum"])
            if other.seed == run.seed and seen != (summary.seen.tokens, summary.seen.checksum):
                raise RuntimeError(
                    f"trained on {summary.seen}, but {other.folder} on {seen}: the runs cannot be compared"
                )
        return {
            "evaluation": f"evaluation_{summary.steps}.json",
            "untrained_tasks": [task for task in summary.adapted.per_task() if not summary.rows.get(task)],
            **summary.figures(),
        }

    def _base(self) -> Evaluation | None:
        """The base model's answers, as the first finished run has them."""
        done = finished_runs(self._runs, self._states)
        return on_rank_zero(lambda: Evaluation.load(done[0][0].folder / "evaluation_base.json") if done else None)

    def _context(self, run: Run, stage: str) -> job.Context:
        return job.Context(parent=self._tracker, tags={"method": run.method, "stage": stage})

    def _log_origin(self) -> None:
        self._tracker.log_params(flatten(to_dict(self._recipe)))
        self._tracker.set_tags(
            {
                "stage": "comparison",
                "model": self._recipe.model.name,
                "git_commit": git_commit(),
                "recipe_hash": recipe_hash(to_dict(self._recipe)),
            }
        )

    def _report(self) -> Results:
        """The results so far, written and tracked."""

        def report() -> Results:
            results = results_of(
                self._recipe, self._methods, self._choices, self._failed_choices, self._runs, self._states
            )
            write_results(results, self._output, self._tracker.run_id)
            write_scores(evaluations_of(self._runs, self._states), self._output)
            return results

        results = on_rank_zero(report)
        step = len(finished_runs(self._runs, self._states))
        self._tracker.log_metrics(results.metrics(), step)
        for file in (RESULTS_FILE, REPORT_FILE, PLOT_FILE, SCORES_FILE):
            if rank() == 0 and (self._output / file).is_file():
                self._tracker.log_artifact(self._output / file)
        return results


def _with_control(recipe: CompareRecipe) -> dict[str, Any]:
    """The methods' adapter sections, all of which fit the model, and that of the equal-parameter LoRA."""
    children = {name: recipe.child(adapter, 0) for name, adapter in recipe.methods.items()}
    counts, problems = {}, []
    for name, child in children.items():
        try:
            counts[name] = trainable_parameters(child)
        except ConfigError:
            raise
        except ValueError as error:
            problems.append(f"methods.{name}: {error}")
    if problems:
        raise ConfigError(problems)
    sections = {**recipe.methods, EQUAL_LORA: equal_lora(children[recipe.reference_method])}
    if not recipe.different_matrices:
        config = model_config(recipe.model.name, recipe.model.revision)
        check_places(config, {name: peft_config(section) for name, section in sections.items()}, len(recipe.tasks))
    return sections
