from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields

import pytest
from reasoning_gym.factory import DATASETS

from tests.tasks.reading import Splits, problems_of, prompts, read
from trex_ds.tasks.base import Scorer
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.gym_names import gym_tasks
from trex_ds.tasks.source import source_of
from trex_ds.tasks.sources.gym import DEPENDS_ON_HASH_SEED, RUNS_GENERATED_TEXT

TWO_NUMBERS = {"min_numbers": 2, "max_numbers": 2, "min_value": 1}


def load(name: str, train: int = 30, evaluation: int = 10, **settings) -> Splits:
    return read(f"gym:{name}", train_examples=train, evaluation_examples=evaluation, **settings)


def score_of(name: str, **settings) -> Scorer:
    found = source_of(TaskConfig(f"gym:{name}", **settings)).scorer()
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["letter_counting", "chain_sum", "spell_backward"])
def test_examples_are_distinct_disjoint_and_solved_by_their_answers(name):
    task = load(name)
    assert {example.task for example in task.train + task.evaluation} == {name}
    assert (len(task.train), len(task.evaluation)) == (30, 10)
    assert len({*prompts(task.train), *prompts(task.evaluation)}) == 40
    assert all(score_of(name)(example, f" {example.answer}\n") == 1.0 for example in task.train + task.evaluation)


def test_default_sizes():
    task = read("gym:chain_sum")
    assert (len(task.train), len(task.evaluation)) == (1000, 100)


def test_seed_decides_and_neighboring_seeds_share_nothing():
    tasks = [load("spell_backward", seed=seed) for seed in (0, 0, 1)]
    assert tasks[0].train == tasks[1].train
    assert tasks[0].evaluation == tasks[1].evaluation
    words = [{*prompts(task.train), *prompts(task.evaluation)} for task in tasks]
    # Both draw 40 of about 30,000 words.
    assert len(words[0] & words[2]) < 4


def test_evaluation_does_not_depend_on_the_number_of_training_examples():
    assert load("letter_counting", train=5).evaluation == load("letter_counting", train=50).evaluation


def test_options_reach_the_task():
    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    for example in load("chain_sum", train=10, evaluation=5, options=options).train:
        first, sign, second = re.search(r"(\d) ([+-]) (\d) =", example.prompt).groups()
        assert int(example.answer) == int(first) + int(sign + second)


def test_records_say_how_to_make_an_entry_again():
    for example in load("spell_backward", train=3, evaluation=2).train:
        assert example.record.keys() == {"seed", "size", "index"}
        dataset, config = DATASETS["spell_backward"]
        entry = dataset(config(seed=example.record["seed"], size=example.record["size"]))[example.record["index"]]
        assert (entry["question"], entry["answer"]) == (example.prompt, example.answer)


def test_entry_that_comes_out_otherwise_is_no_basis_for_a_score():
    example = load("spell_backward", train=1, evaluation=1).train[0]
    with pytest.raises(RuntimeError, match=r"gym:spell_backward makes another example \d+ of seed \d+ than when"):
        score_of("spell_backward", options={"min_word_len": 9})(example, example.answer)


def test_one_side_alone():
    assert len(load("chain_sum", train=0, evaluation=3).evaluation) == 3
    assert len(load("chain_sum", train=3, evaluation=0).train) == 3


def test_partial_marks_do_not_count():
    example = next(e for e in load("spell_backward").evaluation if len(e.answer) > 4)
    almost = example.answer[:-1] + ("a" if example.answer[-1] != "a" else "b")
    dataset = DATASETS["spell_backward"][0](DATASETS["spell_backward"][1](seed=0))
    assert 0.7 < dataset.score_answer(almost, {"question": example.prompt, "answer": example.answer}) < 1
    assert score_of("spell_backward")(example, almost) == 0.0


@pytest.mark.parametrize("generated", ["", " \n", "2 \u00d7 x", "7 \u00d7 0", "\x00", "\uff19"])
def test_strange_text_is_a_wrong_answer(generated):
    task = load("prime_factorization", train=1, evaluation=1)
    assert score_of("prime_factorization")(task.evaluation[0], generated) == 0.0


def test_scorer_raising_is_a_wrong_answer():
    dataset = DATASETS["prime_factorization"][0](DATASETS["prime_factorization"][1](seed=0))
    example = load("prime_factorization", train=1, evaluation=1).evaluation[0]
    with pytest.raises(ValueError, match="invalid literal"):
        dataset.score_answer("two times x", {"answer": example.answer})
    assert score_of("prime_factorization")(example, "two times x") == 0.0


def test_task_with_few_prompts_warns(caplog):
    # Of two numbers up to 9: few different questions.
    task = load("gcd", train=200, evaluation=2, options=TWO_NUMBERS | {"max_value": 9})
    assert 0 < len(task.train) < 200
    assert len({*prompts(task.train)}) == len(task.train)
    assert not {*prompts(task.train)} & {*prompts(task.evaluation)}
    assert f"only {len(task.train)} train examples instead of 200: of 400 made, the others repeat" in caplog.text


def test_task_whose_prompts_are_all_in_evaluation_is_refused():
    with pytest.raises(ValueError, match=r"gym:gcd: its 4 evaluation examples .* none is left for training; lower"):
        load("gcd", train=20, evaluation=50, options=TWO_NUMBERS | {"max_value": 2})


def test_task_without_a_reference_answer_is_refused():
    with pytest.raises(ValueError, match="gym:propositional_logic: an example has None for an answer"):
        load("propositional_logic", train=2, evaluation=2)


def test_scorer_that_refuses_its_own_answers_is_refused(monkeypatch):
    monkeypatch.setattr(DATASETS["chain_sum"][0], "score_answer", lambda self, answer, entry: 0.5)
    with pytest.raises(ValueError, match="gym:chain_sum: its scorer does not accept its own reference answer"):
        load("chain_sum")


def test_scorer_that_gives_anything_full_marks_is_refused():
    message = (
        "gym:game_of_life_halting: its scorer gives full marks to 8 of 8 answers that have nothing to do with the "
        "question, such as 'zqxv' where '(True|False)' is right, so its scores mean nothing; take another task"
    )
    with pytest.raises(ValueError, match=message):
        load("game_of_life_halting", train=0, evaluation=1)


def test_scorer_that_gives_one_guess_full_marks_is_refused():
    # A number that begins as the right one does: all of these begin with 0.
    with pytest.raises(
        ValueError, match=r"gym:coin_flip: its scorer .* to 8 of 8 .* such as '0' where '0\.\d+' is right"
    ):
        load("coin_flip", train=1, evaluation=0)


def test_scorer_that_only_looks_at_the_form_is_refused(monkeypatch):
    monkeypatch.setattr(
        DATASETS["chain_sum"][0],
        "score_answer",
        lambda self, answer, entry: float(bool(re.fullmatch(r"-?\d+", answer))),
    )
    with pytest.raises(ValueError, match=r"gym:chain_sum: its scorer gives full marks to \d+ of \d+ answers that have"):
        load("chain_sum")


@pytest.mark.parametrize(
    "mark",
    [
        lambda answer, right: right.lower() in answer.lower().split(),  # with words around it
        lambda answer, right: answer == right or (answer, right) == ("0", "0.0"),
    ],
)
def test_tolerant_scorers_are_not_refused(monkeypatch, mark):
    answers = ["0.0", "0.0", "Yes", "0.0", "3", "4", "0.0", "7", "0.0"] * 9

    dataset = DATASETS["chain_sum"][0]
    original = dataset.__getitem__
    monkeypatch.setattr(dataset, "score_answer", lambda self, answer, entry: float(mark(answer, entry["answer"])))
    monkeypatch.setattr(dataset, "__getitem__", lambda self, i: original(self, i) | {"answer": answers[i % 9]})
    assert load("chain_sum", train=1, evaluation=1).train


@pytest.mark.parametrize("name", ["power_function", "tsumego"])
def test_tasks_without_a_validate_are_taken(name):
    assert problems_of(TaskConfig(f"gym:{name}")) == []
    made = load(name, train=1, evaluation=1)
    assert all(score_of(name)(example, example.answer) == 1.0 for example in made.train + made.evaluation)
    (problem,) = TaskConfig(f"gym:{name}", options={"no_such": 1}).problems()
    assert f"options: gym:{name} has no option 'no_such'; known: " in problem


def test_names_and_options_read_from_files_are_the_librarys():
    assert {name: task.options() for name, task in gym_tasks().items()} == {
        name: [field.name for field in fields(settings)] for name, (_, settings) in DATASETS.items()
    }


def test_what_scorers_print_is_not_shown(capsys):
    task = load("tower_of_hanoi", train=1, evaluation=1)
    assert score_of("tower_of_hanoi")(task.evaluation[0], "Move disk 1 from Peg 9 to Peg 9") == 0.0
    assert capsys.readouterr().out == ""


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


def test_tasks_that_depend_on_the_hash_seed_need_it_set(monkeypatch):
    for name in DEPENDS_ON_HASH_SEED:
        for value in (None, "random"):
            monkeypatch.delenv("PYTHONHASHSEED", raising=False)
            if value:
                monkeypatch.setenv("PYTHONHASHSEED", value)
            (problem,) = TaskConfig(f"gym:{name}").problems()
            assert problem.startswith(f"source: gym:{name} makes other examples in every process; set PYTHONHASHSEED=0")
        monkeypatch.setenv("PYTHONHASHSEED", "0")
        assert TaskConfig(f"gym:{name}").problems() == []


def test_fingerprint_has_the_hash_seed_where_it_matters(monkeypatch):
    def both() -> list[str]:
        return [source_of(TaskConfig(f"gym:{name}")).fingerprint() for name in ("ransom_note", "chain_sum")]

    monkeypatch.setenv("PYTHONHASHSEED", "0")
    first = both()
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    second = both()
    assert first[0] != second[0]
    assert first[1] == second[1]


def test_all_processes_get_equal_examples():
    program = (
        "from tests.tasks.reading import read; "
        "made = read('gym:ransom_note', train_examples=20, evaluation_examples=5); "
        "print([(e.prompt, e.answer) for e in made.train + made.evaluation])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert len(runs[0].stdout) > 1000
    assert runs[0].stdout == runs[1].stdout
