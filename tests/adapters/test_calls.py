"""The side input belongs to a call: threads, and batches whose rows have adapters of their own."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch

from tests.adapters.test_peft import IDS, adapted, perturb, scores
from tests.conftest import tiny_llama
from trex_ds import TRexConfig


@pytest.fixture
def two(base):
    model = adapted(base.double())
    model.add_adapter("other", TRexConfig(num_in_experts=8, num_out_experts=4))
    model.add_adapter("plain", TRexConfig(intuition_transform="none"))
    perturb(model, "other", seed=2)
    perturb(model, "plain", seed=3)
    return model.double().eval()


def logits(model, **more) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **more).logits


def test_threads_have_the_intuition_of_their_own_calls(base):
    """Each layer waits for the other thread's, so that the two passes are always under way at once."""
    model = adapted(base.double()).eval()
    cases = [scores(seed=seed) for seed in range(2)]
    expected = [logits(model, intuition=c) for c in cases]
    answers = [model.generate(input_ids=IDS, intuition=c, max_new_tokens=4, min_new_tokens=4) for c in cases]
    barrier = threading.Barrier(2, timeout=60)
    for layer in model.base_model._layers():
        layer.register_forward_pre_hook(lambda *_: [None, barrier.wait()][0])
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def call(i: int) -> None:
        alone = logits(model, intuition=cases[i])
        out = model.generate(input_ids=IDS, intuition=cases[i], max_new_tokens=4, min_new_tokens=4)
        found[i] = alone, out

    threads = [threading.Thread(target=call, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        torch.testing.assert_close(found[i][0], expected[i], rtol=0, atol=0)
        assert torch.equal(found[i][1], answers[i])


def test_a_thread_that_gives_no_intuition_is_told_so_and_has_not_anothers(base):
    model = adapted(base)
    logits(model, intuition=scores())
    errors: list[Exception] = []

    def call() -> None:
        try:
            layer = model.base_model._layers()[0]
            layer(torch.zeros(2, 6, layer.in_features))
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "needs intuition" in str(errors[0])


def test_a_copy_of_the_model_is_in_no_call(base):
    model = adapted(base)
    expected = logits(model, intuition=scores())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.base_model._side_input is not model.base_model._side_input
        torch.testing.assert_close(logits(twin, intuition=scores()), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "names", [("default", "other"), ("other", "__base__"), ("plain", "default"), ("plain", "plain")]
)
def test_each_row_of_a_mixed_batch_has_its_own_adapter(two, names):
    together = logits(two, intuition=scores(), adapter_names=list(names))
    for row, name in enumerate(names):
        if name == "__base__":
            with two.disable_adapter():
                alone = logits(two)
        else:
            two.set_adapter(name)
            alone = logits(two, intuition=scores())
        torch.testing.assert_close(together[row], alone[row], rtol=1e-10, atol=1e-10)


def test_mixed_batches_generate(two):
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    for more in ({}, {"num_beams": 2}):
        together = two.generate(
            input_ids=IDS, intuition=scores(), adapter_names=["other", "default"], **settings, **more
        )
        for row, name in enumerate(["other", "default"]):
            two.set_adapter(name)
            alone = two.generate(input_ids=IDS, intuition=scores(), **settings, **more)
            assert torch.equal(together[row], alone[row])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"adapter_names": ["default", "oter"]}, "adapter_names has oter, but the model's adapters are default, other"),
        ({"adapter_names": ["default"]}, "intuition has 2 rows but adapter_names 1"),
        ({"adapter_names": ["plain"], "intuition": None}, "adapter_names has 1 names for 2 rows"),
        ({"adapter_names": ["default", "default"], "intuition": None}, "needs intuition"),
    ],
)
def test_adapter_names_that_do_not_fit_are_refused(two, more, message):
    with pytest.raises(ValueError, match=message):
        logits(two, **({"intuition": scores()} | more))


def test_adapter_names_are_refused_in_training_and_in_packed_rows(two):
    ids = torch.zeros_like(IDS)
    packed = {"segment_ids": ids, "position_ids": torch.arange(6).repeat(2, 1), "intuition": scores().unsqueeze(1)}
    with pytest.raises(ValueError, match="cannot be packed"):
        logits(two, adapter_names=["default", "default"], **packed)
    with pytest.raises(ValueError, match="is for inference"):
        logits(two.train(), intuition=scores(), adapter_names=["default", "default"])


def test_a_model_is_not_left_with_the_names_of_an_earlier_call(two):
    expected = logits(two, intuition=scores())
    logits(two, intuition=scores(), adapter_names=["other", "other"])
    torch.testing.assert_close(logits(two, intuition=scores()), expected, rtol=0, atol=0)


def test_tiny_llama_alone(base):
    """The base model of these tests, without adapters, is as it was made."""
    torch.testing.assert_close(logits(base), logits(tiny_llama()), rtol=0, atol=0)
