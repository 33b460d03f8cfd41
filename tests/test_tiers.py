"""`make test-fast` leaves out what starts processes; nobody has to mark it."""

from __future__ import annotations

import multiprocessing
import subprocess

import pytest
import torch

from tests import ranks
from tests.ranks import run_ranks
from tests.tiers import starts

CONTEXT = multiprocessing.get_context("forkserver")


def by_name():
    run_ranks(2)


def by_module():
    ranks.run_ranks(2)


def through_another():
    by_name()


def with_a_command():
    subprocess.run(["true"], check=True)


def with_torch():
    torch.multiprocessing.spawn(print)


def with_a_context():
    return CONTEXT.Process


def within_another():
    def inner():
        subprocess.run(["true"], check=True)

    return inner


class Helper:
    def start(self):
        by_name()


def with_a_class():
    return Helper


def only_in_words():
    """Name subprocess.run in words alone."""
    return "subprocess", torch.zeros(1), ranks.free_port


ALL = (by_name, by_module, through_another, with_a_command, with_torch, with_a_context, within_another, with_a_class)


@pytest.mark.parametrize("function", ALL, ids=lambda function: function.__name__)
def test_what_starts_a_process_is_found(function):
    assert starts(function)


def test_words_are_no_processes():
    assert not starts(only_in_words)


def test_this_very_test_is_marked_for_what_it_names(request):
    assert CONTEXT
    assert request.node.get_closest_marker("ranks")
