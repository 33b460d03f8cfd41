"""Every outcome of every claim."""

from __future__ import annotations

import pytest

from tests.reporting.reports import FALLING, RISING, compared, report, roles, throughput
from trex_ds.intervals import Interval
from trex_ds.reporting import claims
from trex_ds.reporting.approximation import Approximation
from trex_ds.reporting.claims import FAILS, HOLDS, UNKNOWN
from trex_ds.reporting.routing import AgainstChance, Specialization


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


ADAPTER = {"method": "trex", "num_in_experts": 4}
MODEL = {"name": "a/b", "quantization": None}
TUNED = {"learning_rate": 0.002, "tuning": {"0.001": 2.0, "0.002": 1.5, "0.004": 1.75}}


def finished(seeds=3):
    return [{"seed": seed, "status": "finished"} for seed in range(seeds)]


def comparison(difference, unseen, untrained=("unseen",)):
    """A comparison as trex_ds.comparison.output writes it, but for what is not read."""
    adapters = {
        "mine": ADAPTER,
        "lora_equal": {"method": "lora"},
        "sira": {"method": "sira"},
        "ablated": {"method": "trex", "num_in_experts": 2},
        "ia3": {"method": "ia3"},
    }
    good, bad = interval(0.05, 0.04, 0.06), interval(-0.05, -0.06, -0.04)
    return {
        "recipe": {
            "model": MODEL,
            "tuning": {"max_steps": 3},
            "seeds": [0, 1, 2],
        },
        "untrained_tasks": list(untrained),
        "methods": [{"name": n, "adapter": adapter, "runs": finished(), **TUNED} for n, adapter in adapters.items()],
        "reference": "mine",
        "pairs": [
            {"method": "mine", "baseline": "ablated", "difference": bad, "tasks": {}},
            {"method": "ablated", "baseline": "sira", "difference": bad, "tasks": {}},
            {"method": "sira", "baseline": "mine", "difference": bad, "tasks": {"seen": bad, "unseen": bad}},
            {
                "method": "mine",
                "baseline": "lora_equal",
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
    found, _ = claims.accuracy(comparison(difference, difference), margin, MODEL, ADAPTER)
    assert found.outcome == outcome
    assert found.against.startswith("lora_equal")
    assert found.measured.value == pytest.approx(100 * difference["value"])


def test_better_than_one_and_not_surely_better_than_another_cannot_be_told():
    content = comparison(interval(0.04, 0.03, 0.05), interval(0, 0, 0))
    content["pairs"][2]["difference"] = interval(-0.041, -0.3, 0.2)  # the baseline against the reference
    found, _ = claims.accuracy(content, 0.0, MODEL, ADAPTER)
    assert found.outcome == UNKNOWN
    assert found.against.startswith("sira")
    content["pairs"][2]["difference"] = interval(0.041, 0.03, 0.05)
    found, _ = claims.accuracy(content, 0.0, MODEL, ADAPTER)
    assert (found.outcome, found.measured.value) == (FAILS, pytest.approx(-4.1))


def test_a_pair_counts_whichever_of_the_two_is_the_baseline():
    # Against lora_equal the gain is larger than against sira, for which the pair's method is sira.
    found, _ = claims.accuracy(comparison(interval(0.2, 0.1, 0.3), interval(0, 0, 0)), 0.0, MODEL, ADAPTER)
    assert found.against.startswith("sira")
    assert (found.outcome, found.measured) == (HOLDS, Interval(*map(pytest.approx, (5.0, 4.0, 6.0))))


def test_tasks_that_are_not_trained_on_are_judged_alone():
    better, worse = interval(0.02, 0.01, 0.03), interval(-0.02, -0.03, -0.01)
    _, found = claims.accuracy(comparison(better, worse), 0.0, MODEL, ADAPTER)
    assert found.outcome == FAILS
    assert "tasks unseen" in found.reason
    _, found = claims.accuracy(comparison(better, interval(0, 0, 0), untrained=()), 0.0, MODEL, ADAPTER)
    assert found.outcome == UNKNOWN
    assert "train_examples: 0" in found.reason


def without_a_run(content):
    content["methods"][2]["runs"][1]["status"] = "failed"


def without_runs(content):
    content["methods"][1]["runs"] = []


def without_a_pair(content):
    del content["pairs"][2]


def with_two_seeds(content):
    for method in content["methods"]:
        method["runs"] = finished(2)


def of_another_model(content):
    content["recipe"]["model"] = MODEL | {"quantization": "nf4"}


def without_tuning(content):
    content["recipe"]["tuning"] = None


def with_a_rate_at_the_edge(content):
    content["methods"][1]["learning_rate"] = 0.004


def of_another_adapter(content):
    content["methods"][0]["adapter"] = {"method": "trex", "num_in_experts": 8}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_a_run, "seeds 1 of sira have not finished"),
        (without_runs, "lora_equal have not finished"),
        (without_a_pair, "put sira among its baselines"),
        (with_two_seeds, "has 2 seeds, and takes 3"),
        (of_another_model, "model differs from the recipe's model in quantization"),
        (without_tuning, "set tuning in it"),
        (with_a_rate_at_the_edge, "lora_equal has a learning rate at the edge"),
        (of_another_adapter, "differs from the recipe's adapter in num_in_experts"),
    ],
)
def test_a_comparison_that_is_not_about_the_claim_cannot_tell(change, reason):
    content = comparison(interval(0.02, 0.01, 0.03), interval(0.02, 0.01, 0.03))
    change(content)
    for found in claims.accuracy(content, 0.0, MODEL, ADAPTER):
        assert (found.outcome, found.measured) == (UNKNOWN, None)
        assert reason in found.reason


def test_without_a_comparison_the_command_that_would_tell_is_named():
    for found in claims.accuracy(None, 0.0, MODEL, ADAPTER):
        assert found.outcome == UNKNOWN
        assert "trex-ds compare" in found.reason


def test_approximation():
    assert claims.approximation(FALLING).outcome == HOLDS
    rising = claims.approximation(RISING)
    assert rising.outcome == FAILS
    assert "(2, 2)" in rising.reason
    noise = Approximation(((1, 1), (2, 2)), [[0.5, 0.9, 0.7], [0.8, 0.4, 0.65]], [[0.5] * 3] * 2)
    assert claims.approximation(noise).outcome == UNKNOWN


@pytest.mark.parametrize(("value", "p", "outcome"), [(0.5, 0.05, HOLDS), (0.03, 0.1, UNKNOWN), (0.005, 0.6, FAILS)])
def test_clusters_against_chance(value, p, outcome):
    found = AgainstChance(value, Interval(0.01, -0.02, 0.04), p, 100, 8)
    assert claims.clusters(found).outcome == outcome
    whole, token = claims.specialized(Specialization("adapter", found, found))
    assert (whole.outcome, whole.checked) == (outcome, False)
    assert (token.outcome, token.checked) == (outcome, True)


def test_a_router_that_never_moved_cannot_be_told():
    nothing = AgainstChance(0.0, Interval(0.0, 0.0, 0.0), 1.0, 100, 8)
    _, token = claims.specialized(Specialization("adapter", nothing, nothing))
    assert token.outcome == UNKNOWN
    assert "learned nothing yet" in token.reason


def test_one_task_or_no_adapter_cannot_be_told():
    clusters = claims.clusters("one task")
    assert (clusters.outcome, clusters.reason) == (UNKNOWN, "one task")
    (found,) = claims.specialized("no adapter in runs")
    assert (found.outcome, found.reason) == (UNKNOWN, "no adapter in runs")


def test_only_checked_claims_that_do_not_hold_fail():
    assert claims.failed(report(saved=35.0).verdicts) == []
    (wrong,) = claims.failed(report(saved=20.0).verdicts)
    assert wrong.against.startswith("lora_r32")
