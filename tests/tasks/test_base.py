from __future__ import annotations

import pytest

from trex_ds.tasks import Example, exact_match, right_choice


@pytest.mark.parametrize(
    ("generated", "score"),
    [("New York", 1.0), ("  new\n york ", 1.0), ("York", 0.0), ("New York City", 0.0), ("NewYork", 0.0), ("", 0.0)],
)
def test_exact_match_ignores_case_and_white_space_only(generated, score):
    assert exact_match(Example("Where?", "New York", "places"), generated) == score


def test_right_choice_is_an_answer_or_a_prompt_among_the_choices():
    assert right_choice(Example("2 + 2 =", "4", "sums", ("3", "4"))) == 1
    contexts = ("He left because", "It rained because")
    assert right_choice(Example("It rained because", " it was wet.", "winogrande", contexts)) == 1
    assert right_choice(Example("2 + 2 =", "4", "sums")) is None
