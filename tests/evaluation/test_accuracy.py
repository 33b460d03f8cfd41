from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from trex_ds.evaluation.accuracy import Estimate, Evaluation, Item


def evaluation(**scores: list[float]) -> Evaluation:
    return Evaluation([Item(t, f"{t} {i}", "a", "b", s) for t, values in scores.items() for i, s in enumerate(values)])


def test_accuracy_and_standard_error_per_task():
    values = [1.0, 0.0, 1.0, 1.0, 0.0]
    result = evaluation(sums=values, words=[1.0, 1.0]).per_task()
    assert result["sums"].n == 5
    assert result["sums"].value == pytest.approx(0.6)
    assert result["sums"].standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(5))
    assert result["words"] == Estimate(2, 1.0, 0.0)


def test_mean_weighs_tasks_equally():
    measured = evaluation(sums=[1.0, 0.0, 1.0, 1.0], words=[0.0, 1.0])
    mean, tasks = measured.mean(), measured.per_task()
    assert mean.n == 6
    assert mean.value == pytest.approx((0.75 + 0.5) / 2)
    errors = [task.standard_error for task in tasks.values()]
    assert mean.standard_error == pytest.approx(math.hypot(*errors) / 2)


def test_gain_is_paired_by_item():
    before, after = evaluation(sums=[0.0, 1.0, 0.0, 1.0]), evaluation(sums=[1.0, 1.0, 0.0, 1.0])
    per_task, mean, _ = after.gain_over(before)
    assert per_task["sums"].value == mean.value == pytest.approx(0.25)
    assert mean.standard_error == pytest.approx(np.std([1, 0, 0, 0], ddof=1) / 2)


def test_gain_over_other_items_is_refused():
    with pytest.raises(ValueError, match="different items"):
        evaluation(sums=[1.0]).gain_over(evaluation(words=[1.0]))


def test_one_item_has_no_standard_error():
    assert math.isnan(evaluation(sums=[1.0]).per_task()["sums"].standard_error)


def test_best_guess_is_the_most_frequent_answer_or_choice():
    of_text = [Item("words", f"w {i}", answer, "", 0.0) for i, answer in enumerate([" Yes", "no", "yes", "maybe"])]
    of_place = [Item("places", f"p {i}", f"unique {i}", "", 0.0, place) for i, place in enumerate([1, 1, 0, 1, 2])]
    measured = Evaluation([*of_text, *of_place])
    assert measured.best_guess() == {"words": 0.5, "places": 0.6}
    assert measured.mean_best_guess() == pytest.approx(0.55)
    assert math.isnan(Evaluation([]).mean_best_guess())


def test_tasks_that_were_not_trained_on_have_a_mean_of_their_own():
    scores = {"sums": [1.0, 0.0], "words": [1.0, 1.0], "unseen": [0.0, 0.0], "other": [1.0, 0.0]}
    after = replace(evaluation(**scores), untrained=frozenset({"unseen", "other"}))
    before = evaluation(**{task: [0.0, 0.0] for task in scores})
    assert (after.mean().value, after.mean().n) == (0.75, 4)
    assert (after.mean(untrained=True).value, after.mean(untrained=True).n) == (0.25, 4)
    per_task, mean, others = after.gain_over(before)
    assert (per_task["unseen"].value, mean.value, others.value) == (0.0, 0.75, 0.25)
    metrics = after.metrics("eval")
    assert (metrics["eval/mean/accuracy"], metrics["eval/mean_untrained/accuracy"]) == (0.75, 0.25)
    answers = {"sums": "ab", "words": "cc", "unseen": "dd"}
    guessed = Evaluation(
        [Item(task, "", answer, "", 0.0) for task, own in answers.items() for answer in own], frozenset({"unseen"})
    )
    assert (guessed.mean_best_guess(), guessed.mean_best_guess(untrained=True)) == (0.75, 1.0)


def test_metric_names():
    metrics = evaluation(sums=[1.0, 0.0], words=[1.0, 1.0]).metrics("held_out")
    assert metrics["held_out/sums/accuracy"] == 0.5
    assert metrics["held_out/words/n"] == 2.0
    assert metrics["held_out/mean/accuracy"] == 0.75
    assert len(metrics) == 9


def test_save_and_load(tmp_path):
    measured = replace(evaluation(sums=[1.0, 0.0], wörter=[1.0]), untrained=frozenset({"sums"}))
    measured.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == measured
