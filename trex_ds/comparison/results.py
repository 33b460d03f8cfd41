"""What a comparison has found so far, from the files of its finished runs."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trex_ds.comparison.bootstrap import IntervalWithP, bootstrap, holm
from trex_ds.comparison.config import EQUAL_LORA, CompareRecipe
from trex_ds.comparison.runs import Run
from trex_ds.comparison.state import RunState
from trex_ds.comparison.tuning import Choice
from trex_ds.config import to_dict
from trex_ds.evaluation.accuracy import Evaluation

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class RunResult:
    """One final run of a method."""

    seed: int
    status: str
    folder: str
    """Relative to the comparison's."""
    error: str | None
    result: Mapping[str, Any]
    """Result of a finished run, as in the run's own file."""
    accuracy: float | None
    """Mean over the trained tasks."""
    tasks: Mapping[str, float]


@dataclass(frozen=True)
class MethodResult:
    """A method's runs and their means over its finished seeds."""

    name: str
    adapter: Mapping[str, Any]
    learning_rate: float | None
    """None where no choice could be made yet."""
    tuning: Mapping[float, float | None]
    """Loss on the left-out examples by candidate; None: its training failed."""
    error: str | None
    """Why there is no learning rate."""
    runs: list[RunResult]
    accuracy: IntervalWithP | None
    tasks: Mapping[str, IntervalWithP]
    trainable_parameters: int | None
    step_seconds: float | None
    """Median of the seeds' medians."""
    peak_bytes: int | None
    """Largest of the seeds."""

    @property
    def failed(self) -> bool:
        """Whether a run failed, or none could be made."""
        return self.error is not None or any(run.status == "failed" for run in self.runs)


@dataclass(frozen=True)
class Pair:
    """A method against a baseline, on the seeds that both have finished."""

    method: str
    baseline: str
    seeds: list[int]
    difference: IntervalWithP
    """Difference of the mean accuracies over the trained tasks."""
    tasks: Mapping[str, IntervalWithP]
    p_corrected: float
    """Holm's, over all pairs of the comparison."""
    significant: bool
    parameters_ratio: float
    step_time_ratio: float
    peak_ratio: float


@dataclass(frozen=True)
class Results:
    """A whole report."""

    recipe: Mapping[str, Any]
    reference: str
    methods: list[MethodResult]
    base_accuracy: float | None
    base_tasks: Mapping[str, float]
    best_guess: float | None
    """Mean accuracy of one answer to all of a task, the best such answer; see `Evaluation.best_guess`."""
    best_guess_tasks: Mapping[str, float]
    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)
    """What a reader of the figures must know."""
    untrained_tasks: list[str] = field(default_factory=list)
    """Tasks that no run has training examples of; means leave them out."""

    @property
    def failed(self) -> bool:
        """Whether any run failed."""
        return any(method.failed for method in self.methods)

    def metrics(self) -> dict[str, float]:
        """Metrics of the comparison's own MLflow run."""
        found: dict[str, float] = {}
        for method in self.methods:
            if method.accuracy is not None:
                found[f"comparison/{method.name}/accuracy"] = method.accuracy.value
                found[f"comparison/{method.name}/trainable_parameters"] = float(method.trainable_parameters or 0)
                found[f"comparison/{method.name}/step_seconds"] = float(method.step_seconds or 0)
        for pair in self.pairs:
            found[f"comparison/{pair.method}/difference_to_{pair.baseline}"] = pair.difference.value
            found[f"comparison/{pair.method}/p_against_{pair.baseline}"] = pair.p_corrected
        return found


def finished_runs(runs: Sequence[Run], states: Mapping[Path, RunState]) -> list[tuple[Run, Mapping[str, Any]]]:
    """Finished runs, each with its result."""
    return [(run, states[run.folder].result) for run in runs if states[run.folder].status == "finished"]


def without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without the folders and addresses of one machine, which mean nothing where results are read."""
    kept = {name: value for name, value in recipe.items() if name not in ("output_dir", "tracking")}
    return kept | {"data": {n: v for n, v in recipe["data"].items() if n not in ("cache", "mirror")}}


def evaluations_of(runs: Sequence[Run], states: Mapping[Path, RunState]) -> dict[tuple[str, int], Evaluation]:
    """The adapter's answers of each finished run, by method and seed."""
    return {
        (run.method, run.seed): Evaluation.load(run.folder / result["evaluation"])
        for run, result in finished_runs(runs, states)
    }


def results_of(
    recipe: CompareRecipe,
    methods: Mapping[str, Any],
    choices: Mapping[str, Choice],
    failed_choices: Mapping[str, str],
    runs: Sequence[Run],
    states: Mapping[Path, RunState],
) -> Results:
    """Read the evaluations of the finished runs and compare them.

    Raises:
        ValueError: if two runs have answered different examples.
    """
    output = Path(recipe.output_dir)
    evaluations = evaluations_of(runs, states)
    scores = _scores(evaluations)
    first, result = next(iter(finished_runs(runs, states)), (None, {}))
    base = Evaluation.load(first.folder / "evaluation_base.json") if first else None
    untrained = result.get("untrained_tasks", [])
    found = []
    for name, adapter in methods.items():
        own = [_run_result(run, states[run.folder], evaluations, output) for run in runs if run.method == name]
        done = [run.result for run in own if run.status == "finished"]
        accuracy: IntervalWithP | None = None
        tasks: dict[str, IntervalWithP] = {}
        if done:
            accuracy, tasks = bootstrap(stacked(scores, name, recipe.seeds), least=0.0, untrained=untrained)
        choice = choices.get(name)
        found.append(
            MethodResult(
                name=name,
                adapter=to_dict(adapter),
                learning_rate=choice.learning_rate if choice else None,
                tuning=choice.losses if choice else {},
                error=failed_choices.get(name),
                runs=own,
                accuracy=accuracy,
                tasks=tasks,
                trainable_parameters=done[0]["trainable_parameters"] if done else None,
                step_seconds=statistics.median(result["step_seconds"] for result in done) if done else None,
                peak_bytes=max(result["peak_bytes"] for result in done) if done else None,
            )
        )
    return Results(
        recipe=without_places(to_dict(recipe)),
        reference=recipe.reference_method,
        methods=found,
        base_accuracy=base.mean().value if base else None,
        base_tasks={task: accuracy.value for task, accuracy in base.per_task().items()} if base else {},
        best_guess=base.mean_best_guess() if base else None,
        best_guess_tasks=base.best_guess() if base else {},
        pairs=pairs_of(recipe, {method.name: method for method in found}, scores, untrained),
        notes=_notes(recipe, choices, found),
        untrained_tasks=untrained,
    )


def _run_result(
    run: Run, state: RunState, evaluations: Mapping[tuple[str, int], Evaluation], output: Path
) -> RunResult:
    evaluation = evaluations.get((run.method, run.seed))
    return RunResult(
        seed=run.seed,
        status=state.status,
        folder=str(run.folder.relative_to(output)),
        error=state.error,
        result=state.result,
        accuracy=evaluation.mean().value if evaluation else None,
        tasks={task: accuracy.value for task, accuracy in evaluation.per_task().items()} if evaluation else {},
    )


Scores = Mapping[tuple[str, int], Mapping[str, np.ndarray]]
"""Scores of each method and seed, by task: the score of each item, in the same order for all."""


def _scores(evaluations: Mapping[tuple[str, int], Evaluation]) -> Scores:
    """The scores of each task's items, of each method and seed; the items are the same for all."""
    first = next(iter(evaluations.values()), None)
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for key, evaluation in evaluations.items():
        if [(item.task, item.prompt) for item in evaluation.items] != [(i.task, i.prompt) for i in first.items]:  # type: ignore[union-attr]
            raise ValueError(f"{key[0]}, seed {key[1]} has answered other examples than the runs before it")
        tasks: dict[str, list[float]] = {}
        for item in evaluation.items:
            tasks.setdefault(item.task, []).append(item.score)
        found[key] = {task: np.array(values) for task, values in tasks.items()}
    return found


def stacked(scores: Scores, method: str, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """The scores of those seeds that the method has, of each task (seeds, items)."""
    own = [scores[method, seed] for seed in seeds if (method, seed) in scores]
    return {task: np.stack([one[task] for one in own]) for task in own[0]}


def pairs_of(
    recipe: CompareRecipe, methods: Mapping[str, MethodResult], scores: Scores, untrained: Sequence[str]
) -> list[Pair]:
    """Each method but the baselines against each baseline; the reference against each other one, even if it is one."""
    baselines = [EQUAL_LORA, *(name for name in recipe.baselines if name != EQUAL_LORA)]
    compared = [name for name in recipe.methods if name not in baselines or name == recipe.reference_method]
    found = []
    for name, baseline in itertools.product(compared, baselines):
        seeds = [seed for seed in recipe.seeds if (name, seed) in scores and (baseline, seed) in scores]
        if name == baseline or not seeds:
            continue
        mine, theirs = stacked(scores, name, seeds), stacked(scores, baseline, seeds)
        differences = {task: mine[task] - theirs[task] for task in mine}
        difference, tasks = bootstrap(differences, least=-1.0, untrained=untrained)
        a, b = methods[name], methods[baseline]
        ratios = [
            getattr(a, what) / getattr(b, what) for what in ("trainable_parameters", "step_seconds", "peak_bytes")
        ]
        found.append(Pair(name, baseline, seeds, difference, tasks, 1.0, False, *ratios))
    corrected = holm([pair.difference.p for pair in found])
    return [
        Pair(**{**vars(pair), "p_corrected": p, "significant": p < SIGNIFICANT})
        for pair, p in zip(found, corrected, strict=True)
    ]


def _notes(recipe: CompareRecipe, choices: Mapping[str, Choice], methods: Sequence[MethodResult]) -> list[str]:
    if recipe.tuning is None:
        notes = [
            f"All methods have the learning rate {recipe.training.learning_rate:g}, and the scale of their updates is "
            "not matched: a difference may be one of the scale. Set tuning to choose a learning rate for each."
        ]
    else:
        notes = [
            f"The learning rate of each method is that of {len(recipe.tuning.learning_rates)} candidates with the "
            f"least loss after {recipe.tuning.max_steps} steps with seed {recipe.seeds[0]}, on {recipe.data.left_out} "
            "examples of each task (at most a tenth of it) that no run trains on. The scale of updates is not matched "
            "otherwise."
        ]
    for name, choice in choices.items():
        notes += [f"{name}: {choice.warning}."] if choice.warning else []
        notes += [f"{name}: no loss for the learning rate {rate:g}: {e}." for rate, e in choice.errors.items()]
    if len(recipe.seeds) == 1:
        notes.append("With one seed the intervals say how sure the difference is for these trained adapters alone.")
    for method in methods:
        if method.error:
            notes.append(f"{method.name}: {method.error}.")
        notes += [f"{method.name}, seed {run.seed} failed: {run.error}." for run in method.runs if run.error]
    if waiting := sum(run.status in ("pending", "begun") for method in methods for run in method.runs):
        notes.append(f"{waiting} runs are still to be done.")
    notes.append("Runs were made one after another, not interleaved: a ratio of step times has the machine's drift.")
    return notes
