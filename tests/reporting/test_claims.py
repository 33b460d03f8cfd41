"""Every outcome of every claim."""

from __future__ import annotations

import pytest

from tests.reporting.reports import FALLING, RISING, compared, report, roles, throughput
from trex_ds.reporting import claims
from trex_ds.reporting.approximation import Approximation
from trex_ds.reporting.claims import FAILS, HOLDS, UNKNOWN
from trex_ds.reporting.intervals import Interval
from trex_ds.reporting.routing import AgainstChance, Specialisation


def test_parameters_hold_from_thirty_percent_on_and_rank_16_is_not_checked():
    counts = {"trex": roles(router=70), "molora_8x4": roles(experts_A=100), "lora_r32": roles(experts_B=99)}
    counts["lora_r16"] = roles(experts_A=50)
    found = {v.name: v for v in claims.parameters("a/b", counts, ["lora_r32", "molora_8x4"])}
    assert found["parameters/b/molora_8x4"].outcome == HOLDS
    assert found["parameters/b/lora_r32"].outcome == FAILS
    other = found["parameters/b/lora_r16"]
    assert (other.outcome, other.checked) == (FAILS, False)
    assert other.measured == Interval.exact(pytest.approx(-40.0))


@pytest.mark.parametrize(
    ("low", "value", "high", "outcome"),
    [(1.0, 1.05, 1.1, HOLDS), (1.05, 1.15, 1.2, UNKNOWN), (1.11, 1.2, 1.3, FAILS)],
)
def test_training_time_is_decided_by_the_whole_interval(low, value, high, outcome):
    control = compared("lora_r32", "lora_r32", 0.98, 1.0, 1.02)
    others = compared("sira", "lora_r32", 2.0, 2.0, 2.0)
    (found,) = claims.training_time(throughput(control, compared("trex", "lora_r32", low, value, high), others))
    assert (found.name, found.outcome) == ("time/lora_r32", outcome)
    assert ("report.timing.pairs" in found.reason) == (outcome == UNKNOWN)


def test_no_time_is_believed_if_the_control_is_biased():
    control = compared("lora_r32", "lora_r32", 1.06, 1.1, 1.2)
    (found,) = claims.training_time(throughput(control, compared("trex", "lora_r32", 1.0, 1.0, 1.0)))
    assert found.outcome == UNKNOWN
    assert "control" in found.reason


def interval(value, low, high):
    return {"value": value, "low": low, "high": high, "p": 0.5}


def comparison(difference, unseen, train_examples=0):
    """As trex_ds.comparison.output writes it, but for what is not read."""
    methods = {"mine": "trex", "lora_equal": "lora", "sira": "sira", "ablated": "trex"}
    good = interval(0.05, 0.04, 0.06)
    return {
        "recipe": {"tasks": [{"source": "gym:seen"}, {"source": "gym:unseen", "train_examples": train_examples}]},
        "methods": [{"name": name, "adapter": {"method": method}} for name, method in methods.items()],
        "reference": "mine",
        "pairs": [
            {"method": "mine", "baseline": "ablated", "seeds": [0], "difference": interval(-1, -1, -1), "tasks": {}},
            {"method": "ablated", "baseline": "sira", "seeds": [0], "difference": interval(-1, -1, -1), "tasks": {}},
            {
                "method": "mine",
                "baseline": "sira",
                "seeds": [0, 1],
                "difference": good,
                "tasks": {"seen": good, "unseen": good},
            },
            {
                "method": "mine",
                "baseline": "lora_equal",
                "seeds": [0, 1],
                "difference": difference,
                "tasks": {"seen": good, "unseen": unseen},
            },
        ],
    }


@pytest.mark.parametrize(
    ("difference", "margin", "outcome"),
    [
        (interval(0.02, 0.01, 0.03), 0.0, HOLDS),
        (interval(0.02, 0.01, 0.03), 1.78, UNKNOWN),
        (interval(0.02, 0.01, 0.03), 3.0, FAILS),
        (interval(0.0, -0.01, 0.01), 0.0, UNKNOWN),
        (interval(-0.02, -0.03, -0.01), 0.0, FAILS),
    ],
)
def test_accuracy_against_the_best_lora_based_method(difference, margin, outcome):
    found, _ = claims.accuracy(comparison(difference, difference), margin)
    assert found.outcome == outcome
    assert found.against.startswith("lora_equal")
    assert found.measured.value == pytest.approx(100 * difference["value"])


def test_tasks_that_are_not_trained_on_are_judged_alone():
    _, found = claims.accuracy(comparison(interval(0.02, 0.01, 0.03), interval(-0.02, -0.03, -0.01)), 0.0)
    assert found.outcome == FAILS
    assert "tasks unseen" in found.reason
    _, found = claims.accuracy(comparison(interval(0.02, 0.01, 0.03), interval(0, 0, 0), train_examples=5), 0.0)
    assert found.outcome == UNKNOWN
    assert "train_examples: 0" in found.reason


def test_without_a_comparison_the_command_that_would_tell_is_named():
    for found in claims.accuracy(None, 0.0):
        assert found.outcome == UNKNOWN
        assert "launch/compare.py" in found.reason


def test_approximation():
    assert claims.approximation(FALLING).outcome == HOLDS
    rising = claims.approximation(RISING)
    assert rising.outcome == FAILS
    assert "(2, 2)" in rising.reason
    noise = Approximation(((1, 1), (2, 2)), [[0.5, 0.9, 0.7], [0.8, 0.4, 0.65]], [[0.5] * 3] * 2)
    assert claims.approximation(noise).outcome == UNKNOWN


@pytest.mark.parametrize(("value", "outcome"), [(0.5, HOLDS), (0.03, UNKNOWN), (0.0, FAILS)])
def test_clusters_against_chance(value, outcome):
    found = AgainstChance(value, Interval(0.01, -0.02, 0.04), 100, 8)
    assert claims.clusters(found).outcome == outcome
    whole, token = claims.specialised(Specialisation("adapter", found, found))
    assert (whole.outcome, whole.checked) == (outcome, False)
    assert (token.outcome, token.checked) == (outcome, True)


def test_one_task_or_no_adapter_cannot_be_told():
    assert claims.clusters(None).outcome == UNKNOWN
    (found,) = claims.specialised("no adapter in runs")
    assert (found.outcome, found.reason) == (UNKNOWN, "no adapter in runs")


def test_only_checked_claims_that_do_not_hold_fail():
    assert claims.failed(report(saved=35.0).verdicts) == []
    (wrong,) = claims.failed(report(saved=20.0).verdicts)
    assert wrong.against.startswith("lora_r32")
