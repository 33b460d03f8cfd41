from __future__ import annotations

import pytest

from trex_ds.tasks.base import Example, exact_match, right_choice


@pytest.mark.parametrize(
    ("generated", "score"),
    [("New York", 1.0), ("  new\n york ", 1.0), ("York", 0.0), ("New York City", 0.0), ("NewYork", 0.0), ("", 0.0)],
)
def test_exact_match_ignores_case_and_white_space_only(generated, score):
    assert exact_match(Example("Where?", "New York", "places"), generated) == score


@pytest.mark.parametrize(
    ("reference", "generated", "score"),
    [
        ("caf\u00e9", "cafe\u0301", 1.0),  # composed and decomposed
        ("\u1e9b\u0323", "\u017f\u0323\u0307", 1.0),  # marks in another order
        ("\u03b9\u0308\u0301", "\u0390", 1.0),  # which casefold() writes decomposed
        ("New\u00a0York", "New York", 1.0),
        ("1\u202f000", "1 000", 1.0),
        ("cafe", "caf\u00e9", 0.0),
        ("x\u00b2", "x2", 0.0),  # only compatible, and another number
    ],
)
def test_one_character_may_be_written_in_several_ways(reference, generated, score):
    assert exact_match(Example("Where?", reference, "places"), generated) == score
    assert exact_match(Example("Where?", generated, "places"), reference) == score


def test_right_choice_is_an_answer_or_a_prompt_among_the_choices():
    assert right_choice(Example("2 + 2 =", "4", "sums", ("3", "4"))) == 1
    contexts = ("He left because", "It rained because")
    assert right_choice(Example("It rained because", " it was wet.", "winogrande", contexts)) == 1
    assert right_choice(Example("2 + 2 =", "4", "sums")) is None
