from __future__ import annotations

import inspect
import json
import logging
import pickle
import re

import pytest
import torch
from reasoning_gym.factory import DATASETS

from tests.tasks import ranks
from trex_ds.tasks import Task, TaskConfig, load_tasks
from trex_ds.tasks.gym import RUNS_GENERATED_TEXT, SolvedByOwnScorer


def load_one(name: str, train: int = 30, evaluation: int = 10, **settings) -> Task:
    config = TaskConfig(f"gym:{name}", train_examples=train, evaluation_examples=evaluation, **settings)
    (task,) = load_tasks([config])
    return task


def prompts(examples) -> list[str]:
    return [example.prompt for example in examples]


@pytest.mark.parametrize("name", ["letter_counting", "chain_sum", "spell_backward"])
def test_examples_are_distinct_disjoint_and_solved_by_their_answers(name):
    task = load_one(name)
    assert task.name == name
    assert (len(task.train), len(task.evaluation)) == (30, 10)
    assert len({*prompts(task.train), *prompts(task.evaluation)}) == 40
    assert all(task.score(example, f" {example.answer}\n") == 1.0 for example in task.train + task.evaluation)


def test_default_sizes():
    (task,) = load_tasks([TaskConfig("gym:chain_sum")])
    assert (len(task.train), len(task.evaluation)) == (1000, 100)


def test_seed_decides_and_neighbouring_seeds_share_nothing():
    tasks = [load_one("spell_backward", seed=seed) for seed in (0, 0, 1)]
    assert tasks[0].train == tasks[1].train
    assert tasks[0].evaluation == tasks[1].evaluation
    words = [{*prompts(task.train), *prompts(task.evaluation)} for task in tasks]
    # Both draw 40 of about 30,000 words.
    assert len(words[0] & words[2]) < 4


def test_evaluation_does_not_depend_on_the_number_of_training_examples():
    assert load_one("letter_counting", train=5).evaluation == load_one("letter_counting", train=50).evaluation


def test_options_reach_the_task():
    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    for example in load_one("chain_sum", train=10, evaluation=5, options=options).train:
        first, sign, second = re.search(r"(\d) ([+-]) (\d) =", example.prompt).groups()
        assert int(example.answer) == int(first) + int(sign + second)


def test_partial_marks_do_not_count():
    task = load_one("spell_backward")
    example = next(e for e in task.evaluation if len(e.answer) > 4)
    almost = example.answer[:-1] + ("a" if example.answer[-1] != "a" else "b")
    dataset = DATASETS["spell_backward"][0](DATASETS["spell_backward"][1](seed=0))
    assert 0.7 < dataset.score_answer(almost, example.record) < 1
    assert task.score(example, almost) == 0.0


@pytest.mark.parametrize("generated", ["", " \n", "2 \u00d7 x", "7 \u00d7 0", "\x00", "\uff19"])
def test_strange_text_is_a_wrong_answer(generated):
    task = load_one("prime_factorization", train=1, evaluation=1)
    assert task.score(task.evaluation[0], generated) == 0.0


def test_scorer_raising_is_a_wrong_answer():
    dataset = DATASETS["prime_factorization"][0](DATASETS["prime_factorization"][1](seed=0))
    example = load_one("prime_factorization", train=1, evaluation=1).evaluation[0]
    with pytest.raises(ValueError, match="invalid literal"):
        dataset.score_answer("two times x", example.record)
    assert SolvedByOwnScorer("prime_factorization", {})(example, "two times x") == 0.0


def test_task_with_few_prompts_warns(caplog):
    # A coin is tossed 1 to 3 times: few different questions.
    options = {"min_trials": 1, "max_trials": 3}
    with caplog.at_level(logging.INFO):
        task = load_one("coin_flip", train=200, evaluation=2, options=options)
    assert 0 < len(task.train) < 200
    assert len({*prompts(task.train)}) == len(task.train)
    assert not {*prompts(task.train)} & {*prompts(task.evaluation)}
    assert f"only {len(task.train)} train examples instead of 200: of 400 made" in caplog.text
    assert re.search(r"left out \d+ train examples with an evaluation prompt", caplog.text)


def test_task_whose_prompts_are_all_in_evaluation_is_refused():
    options = {"min_trials": 1, "max_trials": 1}
    with pytest.raises(ValueError, match=r"gym:coin_flip: its .* none is left for training; lower"):
        load_one("coin_flip", train=20, evaluation=50, options=options)


def test_task_without_a_reference_answer_is_refused():
    with pytest.raises(ValueError, match="gym:propositional_logic: an example has None for an answer"):
        load_one("propositional_logic", train=2, evaluation=2)


def test_scorer_that_refuses_its_own_answers_is_refused(monkeypatch):
    monkeypatch.setattr(DATASETS["chain_sum"][0], "score_answer", lambda self, answer, entry: 0.5)
    with pytest.raises(ValueError, match="gym:chain_sum: its scorer does not accept its own reference answer"):
        load_one("chain_sum")


def test_scorers_that_run_the_generated_text_are_refused():
    calls = {
        name
        for name, (dataset, _) in DATASETS.items()
        if re.search(r"\b(eval|exec|parse_expr|sympify)\(", inspect.getsource(dataset.score_answer))
    }
    # These two evaluate their own reference, and parse by hand.
    assert calls - {"number_sorting", "propositional_logic"} == RUNS_GENERATED_TEXT
    for name in RUNS_GENERATED_TEXT:
        (problem,) = TaskConfig(f"gym:{name}").problems()
        assert "runs the generated text as Python code" in problem


def test_task_can_be_pickled_even_after_scoring():
    # The dataset of string_manipulation holds lambdas.
    task = load_one("string_manipulation", train=1, evaluation=2)
    copy = pickle.loads(pickle.dumps(task))
    assert [copy.score(example, example.answer) for example in copy.evaluation] == [1.0, 1.0]


def test_task_that_depends_on_the_hash_seed_warns(monkeypatch, caplog):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    load_one("ransom_note", train=1, evaluation=1)
    assert "gym:ransom_note makes other examples in every process; set PYTHONHASHSEED=0" in caplog.text
    caplog.clear()
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    load_one("ransom_note", train=1, evaluation=1)
    assert caplog.text == ""


@pytest.mark.timeout(180)
def test_all_ranks_get_equal_examples(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    torch.multiprocessing.start_processes(ranks.run, args=(tmp_path,), nprocs=2, start_method="forkserver")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["scores"] == [1.0] * 5
