"""The runs of a comparison: which are to do, in which order, and one done so that its failure spares the others."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trex_ds.comparison.state import MOST_ATTEMPTS, RunState, begin, read_state, write_state
from trex_ds.config import ConfigError, to_dict
from trex_ds.distributed import PeerError, on_rank_zero, rank, world_size
from trex_ds.launching.process_group import JOIN_SECONDS, is_broken_by_a_peer, peers
from trex_ds.modeling.zero3 import forget_models
from trex_ds.training.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training of a comparison."""

    method: str
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """Folder that the run writes to."""
        return Path(self.recipe.output_dir)

    def described(self) -> dict[str, Any]:
        """Identity of the run."""
        return to_dict(self.recipe) | {"ranks": world_size()}


def states_of(runs: Sequence[Run], retry_failed: bool) -> list[RunState]:
    """What is known of each run; one that has ended the job too often is noted as failed. A collective.

    Raises:
        ConfigError: with every folder that holds something else than the run that is to be there.
    """
    problems, states = on_rank_zero(lambda: _read_all(runs, retry_failed))
    if problems:
        raise ConfigError(problems)
    return states


def in_order(runs: Sequence[Run], states: Sequence[RunState]) -> list[tuple[Run, RunState]]:
    """The runs to do: first those without a state, then those during which a job ended."""
    waiting = [pair for pair in zip(runs, states, strict=True) if pair[1].status in ("pending", "begun")]
    return sorted(waiting, key=lambda pair: pair[1].interrupted)


def execute(run: Run, state: RunState, work: Callable[[], Mapping[str, Any]]) -> RunState:
    """Do `work`, whose result is kept; an exception on all ranks is kept, too, and not raised. A collective.

    Where it is raised on some ranks only, the others may wait for these in a collective forever: then the job
    ends, and the state that stays behind is "begun".
    """
    state = on_rank_zero(lambda: begin(run.folder, state))
    result: Mapping[str, Any] = {}
    error = None
    try:
        result = work()
        errors = _meet(None, JOIN_SECONDS)
    except Exception as exception:
        if is_broken_by_a_peer(exception):
            raise
        if rank() == 0:
            log.exception("%s, seed %d failed", run.method, run.seed)
        try:
            # The others' collectives have a limit of this many minutes, after which the group is of no use.
            errors = _meet(f"{type(exception).__name__}: {exception}", 30 * run.recipe.training.timeout_minutes)
        except PeerError:
            raise exception from None
    forget_models()
    error = next((message for message in errors if message is not None), None)
    if error is None:
        state = dataclasses.replace(state, status="finished", result=dict(result))
    else:
        state = dataclasses.replace(state, status="failed", error=error)
    on_rank_zero(lambda: write_state(run.folder, state))
    return state


def _read_all(runs: Sequence[Run], retry_failed: bool) -> tuple[list[str], list[RunState]]:
    problems, states = [], []
    for run in runs:
        try:
            state = read_state(run.folder, run.described())
        except ValueError as error:
            problems.append(f"output_dir: {error}")
            continue
        if state.status == "failed" and retry_failed:
            state = RunState(state.recipe)
        elif state.interrupted and state.attempts >= MOST_ATTEMPTS:
            again = RunState(state.recipe) if retry_failed else None
            state = again or dataclasses.replace(
                state, status="failed", error=f"the job ended during this run, {state.attempts} times"
            )
            write_state(run.folder, state)
        states.append(state)
    return problems, states


def _meet(message: str | None, seconds: float) -> list[str | None]:
    """How the run ended on every rank, exchanged apart from the process group, which may be in use or broken."""
    job = peers()
    return [message] if job is None else job.exchange("the end of a run", message, seconds)
