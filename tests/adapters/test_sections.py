"""Values that make no adapter are named before anything is loaded, all at once."""

from __future__ import annotations

import dataclasses

import pytest

from tests.adapters.methods import METHODS, section
from trex_ds.methods import config
from trex_ds.methods.adalora import AdaLora
from trex_ds.methods.ia3 import IA3
from trex_ds.methods.poly import Mhr
from trex_ds.methods.routed import RoutedMethod
from trex_ds.methods.smora import Smora


def with_field(name: str) -> list[str]:
    return [m for m in METHODS if name in {f.name for f in dataclasses.fields(config.METHODS[m])}]


@pytest.mark.parametrize("method", METHODS)
def test_small_and_default_values_are_no_problem(method):
    assert section(method).problems() == config.METHODS[method]().problems() == []


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("lora_alpha", (0, -1), "lora_alpha: must be a finite number above 0, got 0"),
        ("alpha", (0, -8.0), "alpha: must be a finite number above 0, got 0"),
        ("randlora_alpha", (0, -1), "randlora_alpha: must be"),
        ("lora_dropout", (-0.1, 1.0, float("nan")), "lora_dropout: must lie in [0, 1), got -0.1"),
        ("vera_dropout", (1.5,), "vera_dropout: must lie in [0, 1), got 1.5"),
        ("randlora_dropout", (-1.0,), "randlora_dropout: must lie"),
        ("rank_dropout", (1.0,), "rank_dropout: must lie"),
        ("dropout", (1.0,), "dropout: must lie in [0, 1), got 1.0"),
        ("tinit", (-1,), "tinit: must be at least 0, got -1"),
        ("tfinal", (-5,), "tfinal: must be at least 0, got -5"),
        ("d_initial", (0.0, float("nan"), float("inf")), "d_initial: must be finite and not 0"),
        ("decompose_factor", (0, -2), "decompose_factor: must be -1 or at least 1, got 0"),
        ("r", (0, -4), "must be a whole number of at least 1, got 0"),
        ("n_skills", (0,), "n_skills: must be a whole number of at least 1, got 0"),
        ("n_splits", (0,), "n_splits: must be"),
        ("num_virtual_tokens", (0,), "num_virtual_tokens: must be"),
        ("target_modules", ([], ""), "target_modules: names nothing; name modules, or leave it out, got []"),
        ("layers_to_transform", ([], -1, [0, -2]), "layers_to_transform: must be indices of layers"),
    ],
)
def test_values_that_make_no_adapter(field, wrong, message):
    methods = with_field(field)
    assert methods
    for method in methods:
        for number, value in enumerate(wrong):
            found = dataclasses.replace(section(method), **{field: value}).problems()
            assert len(found) == 1, (method, value, found)
            assert field in found[0]
            assert number > 0 or message in found[0], (method, found)


def test_all_that_is_wrong_is_said_at_once():
    found = AdaLora(init_r=0, lora_dropout=2.0, lora_alpha=0, tinit=-1, target_modules=[]).problems()
    assert {line.partition(":")[0] for line in found} == {
        "init_r",
        "lora_dropout",
        "lora_alpha",
        "tinit",
        "target_modules",
    }
    found = Smora(r=0, dropout=1.0, lora_alpha=0.0, target_modules=None).problems()
    assert {line.partition(":")[0] for line in found} == {"r", "dropout", "lora_alpha", "target_modules"}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (IA3(target_modules=["k_proj"], feedforward_modules=["k_proj", "up_proj"]), "up_proj must be among"),
        (AdaLora(init_r=4, target_r=4), "target_r: must lie between 0 and init_r = 4, got 4"),
        (AdaLora(tinit=2**31), "leave none of the"),
        (Mhr(n_splits=1), "n_splits: 1 makes Poly of MHR"),
    ],
)
def test_values_that_do_not_go_together(chosen, message):
    (found,) = chosen.problems()
    assert message in found


@pytest.mark.parametrize("method", with_field("layers_to_transform"))
@pytest.mark.parametrize("targets", ["all-linear", ".*_proj"])
def test_layers_are_refused_where_peft_forgets_them(method, targets):
    chosen = dataclasses.replace(section(method), layers_to_transform=[1], target_modules=targets)
    if isinstance(chosen, RoutedMethod):
        assert chosen.problems() == []
    else:
        (found,) = chosen.problems()
        assert f"where target_modules is {targets!r}; name the modules" in found
    assert dataclasses.replace(chosen, target_modules=["q_proj"]).problems() == []
