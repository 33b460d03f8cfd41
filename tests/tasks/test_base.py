from __future__ import annotations

import pytest

from trex_ds.tasks import Example, exact_match


@pytest.mark.parametrize(
    ("generated", "score"),
    [("New York", 1.0), ("  new\n york ", 1.0), ("York", 0.0), ("New York City", 0.0), ("NewYork", 0.0), ("", 0.0)],
)
def test_exact_match_ignores_case_and_white_space_only(generated, score):
    assert exact_match(Example("Where?", "New York", "places"), generated) == score
