"""Tasks of lm-evaluation-harness that draw at random, made to draw alike in every process and every time.

Some shuffle the choices of their documents (gpqa), with Python's global generator and no seed: without this, what is
trained on differs from what is evaluated, and ranks ask different questions under the same number.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

_SEED = 0


@contextmanager
def fixed_draws() -> Iterator[None]:
    """Seed the global generators of Python and NumPy for the block, and leave them as they were."""
    import numpy as np

    states = random.getstate(), np.random.get_state()
    random.seed(_SEED)
    np.random.seed(_SEED)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def alike_each_time() -> Iterator[None]:
    """Let tasks that are loaded within the block process their documents alike whenever they do it."""
    from lm_eval.config.task import TaskConfig

    original = TaskConfig.__post_init__

    def post_init(config: Any) -> None:
        if callable(config.process_docs):
            config.process_docs = _alike(config.process_docs)
        original(config)

    with mock.patch.object(TaskConfig, "__post_init__", post_init):
        yield


def _alike(process_docs: Callable[[Any], Any]) -> Callable[[Any], Any]:
    names = getattr(inspect.unwrap(process_docs), "__globals__", {}).values()
    own = [value for value in names if isinstance(value, random.Random)]
    draws = bool(own) or any(value is random for value in names)

    @functools.wraps(process_docs)
    def processed(dataset: Any) -> Any:
        for generator in own:
            generator.seed(_SEED)
        with fixed_draws(), _uncached() if draws else nullcontext():
            return process_docs(dataset)

    return processed


@contextmanager
def _uncached() -> Iterator[None]:
    """Switch off datasets' files of earlier results, which may have been drawn otherwise."""
    import datasets

    before = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if before:
            datasets.enable_caching()
