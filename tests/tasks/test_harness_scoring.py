"""The choice of lm-eval's metric and answer filter, for groups of every shape and tasks of every kind."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.group import AggMetricConfig, GroupConfig
from lm_eval.config.task import TaskConfig as HarnessConfig
from lm_eval.tasks import _factory

from tests.tasks import mirrors
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.harness.draws import fixed_draws
from trex_ds.tasks.harness.index import _manager, _root
from trex_ds.tasks.harness.loading import load_tasks
from trex_ds.tasks.harness.scoring import main_metric, rehearse, score_reference
from trex_ds.tasks.source import source_of


class WithoutData(ConfigurableTask):
    """What lm-eval makes of a task's YAML, without its data."""

    def __init__(self, config: dict[str, Any]):
        fields = {name: value for name, value in config.items() if name in HarnessConfig.__dataclass_fields__}
        self._config = SimpleNamespace(**{"filter_list": None, "metric_list": None, **fields})

    def higher_is_better(self) -> dict[str, bool]:
        return {str(one["metric"]): one.get("higher_is_better", True) for one in self.config.metric_list or ()}

    @property
    def filters(self) -> list[str]:
        return [one["name"] for one in self.config.filter_list or ({"name": "none"},)]

    @property
    def metrics(self) -> list[str]:
        return [str(one["metric"]) for one in self.config.metric_list or ({"metric": "acc"},)]


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    """Every group of lm-eval's registry, with its tasks and groups within, made by lm-eval itself."""

    def build_task(self: Any, entry: Any, overrides: dict[str, Any] | None) -> WithoutData:
        return WithoutData({"task": entry.name, **entry.cfg, **(overrides or {})})

    index = dict(_manager(_root()).task_index)
    for broken in ("t0_eval", "toksuite_abridged"):  # lm-eval cannot make them: tasks within have no name of their own
        del index[broken]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_factory.TaskFactory, "_build_task", build_task)
        patch.setattr(_factory, "ConfigurableTask", WithoutData)
        factory = _factory.TaskFactory()
        return [factory.build(entry, registry=index) for entry in [*index.values()] if entry.kind.name == "GROUP"]


def test_groups_of_every_shape(groups):
    """The filter that counts is one that lm-eval's own average of the group has, where it has one."""
    shapes, checked = set(), 0
    for group in groups:
        inner = {each.name: each for each in (group, *group.get_all_groups())}
        tasks = {task.task_name: task for task in group.get_all_tasks()}
        values = {
            name: {"sample_len": 1} | {f"{metric},{kept}": 1.0 for metric in task.metrics for kept in task.filters}
            for name, task in tasks.items()
        }
        averaged = {key for each in inner.values() for key in each.aggregate(values)}
        for one in inner.values():
            shapes |= {
                (type(metric.filter_list).__name__, metric.weight_by_size, one is not group)
                for metric in one.aggregate_metric_list or (SimpleNamespace(filter_list=0, weight_by_size=0),)
            }
        for name, task in list(tasks.items())[:3] + list(tasks.items())[-1:]:
            samples = [
                {"filter": kept, "metrics": task.metrics, **dict.fromkeys(task.metrics, 1.0)} for kept in task.filters
            ]
            better = task.higher_is_better()
            if not any(better.get(metric, True) for metric in task.metrics):
                continue
            metric, kept = main_metric(task, samples, inner)
            own = {key for key in values[name] if key in averaged and key.split(",")[0] == metric}
            assert f"{metric},{kept}" in own or not own, (group.name, name)
            assert better.get(metric, True)
            checked += 1
    assert len(groups) > 800
    assert checked > 2000
    # No list, a list, no average at all; by size and not; a group, and one within another.
    assert {kind for kind, _, _ in shapes} == {"NoneType", "list", "int"}
    assert {by_size for _, by_size, _ in shapes} >= {True, False}
    assert {inside for *_, inside in shapes} == {True, False}


def sample(kept: str = "none", **metrics: Any) -> dict[str, Any]:
    return {"filter": kept, "metrics": list(metrics), **metrics}


def task(**better: bool) -> Any:
    return SimpleNamespace(config=SimpleNamespace(task="one"), higher_is_better=lambda: better)


def group(*filters: Any) -> dict[str, Group]:
    found = Group.from_config(
        GroupConfig(group="all", task=["one"], aggregate_metric_list=[AggMetricConfig("acc", f) for f in filters])
    )
    found.get_all_tasks = lambda recursive=True: [task()]
    return {"all": found}


@pytest.mark.parametrize(
    ("filters", "kept"),
    [([None], "a"), (["b"], "b"), ([["c", "b"]], "c"), ([["z"]], "a"), ([], "a"), ([None, "b"], "b")],
)
def test_filter_that_counts(filters, kept):
    samples = [sample(each, acc=1.0) for each in "abc"]
    assert main_metric(task(), samples, group(*filters)) == ("acc", kept)


@pytest.mark.parametrize(
    ("samples", "metric"),
    [
        ([sample(f1=(0, 1), acc=1)], "acc"),
        ([sample(perplexity=-3.0, acc=0.0)], "acc"),  # less is better
        ([sample(acc=np.True_), sample(acc=np.False_)], "acc"),
        ([sample(acc=np.float32(0.5))], "acc"),
        ([sample(f1=1.0, acc=1.0), sample(f1=None, acc=1.0)], "acc"),
        ([sample(f1=1.0, acc=1.0), sample(acc=1.0)], "acc"),
    ],
)
def test_metric_that_counts(samples, metric):
    assert main_metric(task(perplexity=False), samples, {})[0] == metric


@pytest.mark.parametrize("value", [-1.0, 1.5, 37, float("nan")])
def test_metric_that_is_no_accuracy(value):
    with pytest.raises(ValueError, match=rf"lm_eval:one: its metric acc is {value} for an item, not in \[0, 1\]"):
        main_metric(task(), [sample(acc=1.0), sample(acc=value)], {})
    with pytest.raises(ValueError, match=r"no metric with a value for each item, more being better \(only f1, loss\)"):
        main_metric(task(loss=False), [sample(f1=(0, 1), loss=0.5)], {})


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    return mirrors.write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.mark.parametrize("name", ["boolq", "winogrande", "copa", "multirc", "commonsense_qa"])
def test_reference_answers_score(mirror, name):
    loaded = load_tasks([name], mirror)
    assert score_reference(loaded.tasks[name], loaded.groups) == 1.0


def test_reference_answer_that_the_tasks_own_filter_drops_is_not_trained_on(tmp_path):
    # Asked to think aloud, it looks for "the answer is ..." in what was generated; the reference is the bare answer.
    rows = [{"input": f"not True is {i}", "target": "False"} for i in range(3)]
    mirrors.write_dataset(tmp_path, "SaylorTwift/bbh", {"boolean_expressions": {"test": rows, "train": rows}})
    name = "bbh_cot_fewshot_boolean_expressions"
    config = TaskConfig(f"lm_eval:{name}", options={"training_split": "train"})
    with pytest.raises(ValueError, match=f"lm_eval:{name}: its metric gives its own reference answers 0"):
        list(source_of(config, str(tmp_path)).examples())
    config = TaskConfig(f"lm_eval:{name}", train_examples=0)
    assert len(list(source_of(config, str(tmp_path)).examples())) == 3


def test_task_whose_scorer_fails_is_refused(mirror, monkeypatch):
    chosen = load_tasks(["boolq"], mirror).tasks["boolq"]

    def process_results(doc, results):
        raise LookupError("no tokenizer data")

    monkeypatch.setattr(chosen, "process_results", process_results)
    with pytest.raises(
        ValueError, match="boolq, document 0: lm-eval cannot score its reference answer: LookupError: no"
    ):
        rehearse(chosen)


def test_task_that_asks_otherwise_each_time_is_refused(mirror, monkeypatch):
    chosen = load_tasks(["boolq"], mirror).tasks["boolq"]
    texts = iter(map(str, range(99)))
    monkeypatch.setattr(chosen, "doc_to_text", lambda doc, *_: next(texts))
    with pytest.raises(ValueError, match="lm_eval:boolq, document 0: the task asks otherwise each time"):
        rehearse(chosen)


def test_shuffled_choices_are_the_same_every_time(tmp_path):
    rows = [
        {
            "Question": f"What is {i}?",
            "Correct Answer": "right",
            **{f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)},
        }
        for i in range(12)
    ]
    mirrors.write_dataset(tmp_path, "Idavidrein/gpqa", {"gpqa_main": {"train": rows}})
    orders = []
    for state, copies in ((0, None), (1, tmp_path / "copies"), (2, tmp_path / "copies")):
        random.seed(state)
        loaded = load_tasks(["gpqa_main_zeroshot", "gpqa_main_n_shot"], tmp_path, copies)
        orders += [[doc["answer"] for doc in loaded.tasks[name].eval_docs] for name in loaded.tasks for _ in range(2)]
    one, _, other, _ = orders[:4]
    assert orders == [one, one, other, other] * 3
    assert len(set(one)) > 1
    assert random.getstate() != state_of(0)


def state_of(seed: int) -> object:
    with fixed_draws():
        random.seed(seed)
        return random.getstate()


def test_fixed_draws_leave_the_callers_generators_alone():
    random.seed(5)
    np.random.seed(5)
    with fixed_draws():
        inside = random.random(), np.random.random()
    outside = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    assert outside == (random.random(), np.random.random())
    with fixed_draws():
        assert inside == (random.random(), np.random.random())
