"""Examples of lm-evaluation-harness, scored by their tasks' own requests, filters and metrics."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lm_eval
from lm_eval.models.utils import normalize_gen_kwargs, resolve_max_length

from trex_ds.config import ConfigError
from trex_ds.evaluation.harness_model import DEFAULT_ANSWER_LENGTH, TRexLM
from trex_ds.modeling.mode import evaluation_mode
from trex_ds.protocols import CausalLM, Tokenizer
from trex_ds.tasks.base import Example
from trex_ds.tasks.harness.documents import training_docs
from trex_ds.tasks.harness.draws import fixed_draws
from trex_ds.tasks.harness.index import quiet
from trex_ds.tasks.harness.loading import Loaded
from trex_ds.tasks.harness.scoring import main_metric


@dataclass(frozen=True)
class Outcome:
    """Outcome of one example."""

    score: float
    """Value of `metric`, in [0, 1]."""
    generated: str
    """The text that was generated, or of the choice that was taken."""
    metric: str


def evaluate_examples(lm: TRexLM, examples: Sequence[Example], loaded: Loaded) -> list[Outcome]:
    """Score examples that a `lm_eval:` source gave, of either split; a collective, the same on every rank.

    Contexts are zero-shot, as the examples' prompts are. What counts is a task's main metric, see
    `main_metric`.

    Args:
        lm: the model.
        examples: whose `record` says which document they are.
        loaded: their tasks, from `trex_ds.tasks.harness.loading.load_tasks`.

    Returns:
        One for each example, in their order.

    Raises:
        ValueError: a task has no metric with a value for each item, or is not among those loaded.
    """
    positions: dict[str, list[int]] = {}
    for position, example in enumerate(examples):
        assert example.record is not None, f"{example.task}: an example without a record is not lm-eval's"
        positions.setdefault(example.record["lm_eval"], []).append(position)
    missing = [name for name in positions if name not in loaded.tasks]
    if missing:
        raise ValueError(f"the tasks {', '.join(missing)} are not loaded; load all that the examples come from")
    if not positions:
        return []
    chosen = {name: _with_docs(loaded.tasks[name], [examples[i] for i in own]) for name, own in positions.items()}
    with evaluation_mode(lm.model), quiet(), fixed_draws():  # some scorers guess at random where they find no answer
        results = lm_eval.evaluate(lm=lm, task_dict={"tasks": chosen}, log_samples=True, bootstrap_iters=0)
    outcomes: dict[int, Outcome] = {}
    for name, own in positions.items():
        samples = results["samples"][name]
        metric, kept = main_metric(chosen[name], samples, loaded.groups)
        for sample in samples:
            if sample["filter"] == kept:
                generated = _generated(chosen[name], sample)
                outcomes[own[sample["doc_id"]]] = Outcome(float(sample[metric]), generated, metric)
    return [outcomes[position] for position in range(len(examples))]


def check_room(loaded: Loaded, model: CausalLM, tokenizer: Tokenizer) -> None:
    """Refuse tasks that ask for longer answers than the model has room for, before any of them is asked.

    Raises:
        ConfigError: names all of them.
    """
    most = resolve_max_length(model.config, tokenizer)
    asked = {
        name: normalize_gen_kwargs(task.config.generation_kwargs, DEFAULT_ANSWER_LENGTH)["max_gen_toks"]
        for name, task in loaded.tasks.items()
        if task.config.generation_kwargs
    }
    problems = [
        f"lm_eval:{name} asks for up to {length} new tokens, but the model takes {most} with the context; leave the "
        "task out, or take a model with more room"
        for name, length in asked.items()
        if length >= most
    ]
    if problems:
        raise ConfigError(problems)


def _with_docs(task: Any, examples: Sequence[Example]) -> Any:
    """A shallow copy of the task that is evaluated on the examples' documents, in their order, without shots."""
    records = [example.record or {} for example in examples]
    splits = {(record["split"], record["dataset_split"]) for record in records}
    documents = {split: _documents(task, *split) for split in splits}
    docs = [documents[record["split"], record["dataset_split"]][record["doc_id"]] for record in records]
    chosen = copy.copy(task)
    chosen._config = copy.copy(task.config)
    chosen.set_config("num_fewshot", 0)
    chosen.has_test_docs = lambda: True
    chosen.test_docs = lambda: docs
    return chosen


def _documents(task: Any, split: str, dataset_split: str) -> Any:
    return task.eval_docs if split == "evaluation" else training_docs(task, dataset_split)[1]


def _generated(task: Any, sample: Mapping[str, Any]) -> str:
    if task.OUTPUT_TYPE == "generate_until":
        (answer,) = sample["filtered_resps"]
        return str(answer[0] if isinstance(answer, list) else answer).strip()
    likelihoods = [response[0][0] for response in sample["resps"]]
    if task.OUTPUT_TYPE == "loglikelihood":
        (_, greedy), text = sample["resps"][0][0], sample["arguments"][0][1]
        return text.strip() if greedy else ""
    choices = task.doc_to_choice(sample["doc"])
    taken = max(range(len(choices)), key=likelihoods.__getitem__)
    return choices[taken].strip()
