"""The bench: which engines are alive when, whose memory is measured, and how steps are paired; without real engines."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from trex_ds.reporting import throughput
from trex_ds.reporting.config import Timing


class Engine:
    """Takes as many seconds a step as its name says."""

    def __init__(self, name: str, world: SimpleNamespace):
        self.name, self.world = name, world
        world.alive.append(self)
        world.most_alive = max(world.most_alive, len(world.alive))

    def next_batches(self):
        return SimpleNamespace(tokens=lambda: (10, 8, 2))

    def take_step(self, batches) -> float:
        assert self in self.world.alive
        self.world.steps.append(self.name)
        self.world.peak = sum(len(engine.name) for engine in self.world.alive)
        return {"slow": 2.2, "fast": 2.0, "other": 1.0}[self.name]


@pytest.fixture
def world(monkeypatch):
    made = SimpleNamespace(alive=[], most_alive=0, steps=[], peak=0)
    monkeypatch.setattr(throughput, "training_arguments", lambda recipe: None)
    monkeypatch.setattr(throughput, "make_trainer", lambda recipe, adapter, *_: Engine(adapter, made))
    monkeypatch.setattr(throughput, "release", lambda trainer: made.alive.remove(trainer))
    monkeypatch.setattr(throughput, "reset_peak", lambda: None)
    monkeypatch.setattr(throughput, "peak_bytes", lambda: made.peak)
    return made


def measured(*pairs, **timing):
    recipe = SimpleNamespace(training=SimpleNamespace(deepspeed="ds.json"))
    methods = {name: name for name in ("slow", "fast", "other")}
    return throughput.measure(recipe, Timing(**timing), methods, pairs, None)


PAIRS = (("fast", "fast"), ("slow", "fast"), ("slow", "other"))


def test_two_at_most_are_alive_and_each_is_made_once_where_it_can_stay(world):
    found = measured(*PAIRS, pairs=6, warm_up_steps=0)
    assert world.most_alive == 2
    assert world.alive == []
    assert found.peak_bytes == {"slow": 4, "fast": 4, "other": 5}  # alone


def test_ratios_are_the_methods_over_the_baselines_whatever_the_order(world):
    control, first, second = measured(*PAIRS, pairs=6, warm_up_steps=0).comparisons
    assert control.ratios == [1.0] * 6
    assert first.ratios == pytest.approx([1.1] * 6)
    assert second.ratios == pytest.approx([2.2] * 6)
    assert second.method_speed.step_seconds == 2.2
    speed = second.baseline_speed
    rates = (speed.padded_tokens_per_second, speed.real_tokens_per_second, speed.supervised_tokens_per_second)
    assert rates == pytest.approx((10.0, 8.0, 2.0))


def test_steps_come_a_b_b_a_after_the_warm_up(world):
    measured(("slow", "fast"), pairs=6, warm_up_steps=2)
    timed = "".join(name[0] for name in world.steps)
    assert timed == "ss" + "s" + "ff" + "sffs" * 3 + "f"  # warm-up, alone, warm-up, in turn, alone


def test_time_that_is_up_ends_a_comparison_after_six_pairs(world, monkeypatch):
    clock = itertools.count(step=100.0)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    (found,) = measured(("slow", "fast"), pairs=20, minutes=0.1).comparisons
    assert len(found.ratios) == throughput.LEAST_PAIRS
