"""Shows what each rank holds, after loading and after the first step, wherever a job reports to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from trex_ds.console import console
from trex_ds.distributed import agreed, gather_objects, on_rank_zero, rank
from trex_ds.environment import describe_environment
from trex_ds.files import write_json
from trex_ds.modeling.held import Held, check_sharded, held_by_all_ranks, peak_bytes, reset_peak
from trex_ds.tables import Table
from trex_ds.tracking.tracker import Tracker

MEMORY_FILE = "memory.json"
_MOST_COLUMNS = 8


class MemoryRecord:
    """Prints, tracks and writes to `folder`/memory.json what each rank holds; `take` is a collective."""

    def __init__(self, folder: Path, tracker: Tracker, sharded: bool):
        self._folder = folder
        self._tracker = tracker
        self._sharded = sharded
        self._moments: dict[str, list[Held]] = {}
        reset_peak()

    def take(self, moment: str, model: nn.Module, step: int, optimizer: Any = None) -> Held:
        """Record one moment of the job, with the peak since the last one; what this rank holds.

        Raises:
            RuntimeError: under ZeRO-3, where a rank holds more of the base model than its part.
        """
        ranks = held_by_all_ranks(model, optimizer)
        self._moments[moment] = ranks
        self._tracker.log_metrics(memory_metrics(ranks, moment), step)
        on_rank_zero(self._save)
        if rank() == 0:
            console().print(memory_table(ranks, moment))
        with agreed():
            if self._sharded:
                check_sharded(model)
        reset_peak()
        return ranks[rank()]

    def training_peak(self, step: int) -> int:
        """Largest use of memory by any rank since the model was loaded, after `take` of the first step; bytes."""
        first = self._moments.get("after the first step", [])
        peak = max([*gather_objects(peak_bytes()), *(held.peak_bytes for held in first)])
        self._tracker.log_metrics({"system/training/peak_bytes": peak}, step)
        return peak

    def _save(self) -> None:
        content = {moment: [asdict(held) for held in ranks] for moment, ranks in self._moments.items()}
        write_json(self._folder / MEMORY_FILE, content | {"environment": describe_environment()})


def memory_metrics(ranks: Sequence[Held], moment: str) -> dict[str, float]:
    """Metrics for a tracker: the most that a rank holds of each role and of optimizer states, and its peak; bytes."""
    name = moment.replace(" ", "_")
    most = {role.replace(" ", "_"): max(h.roles[role].held_bytes for h in ranks) for role in ranks[0].roles}
    most |= {"optimizer": max(h.optimizer_bytes for h in ranks), "peak": max(h.peak_bytes for h in ranks)}
    return {f"system/{name}/{part}_bytes": value for part, value in most.items()}


def memory_table(ranks: Sequence[Held], moment: str) -> Table:
    """GiB by role and rank; of many ranks the least and the most."""
    few = len(ranks) <= _MOST_COLUMNS
    columns = [f"rank {held.rank}" for held in ranks] if few else ["least of a rank", "most of a rank"]
    rows: list[list[str]] = []

    def row(role: str, whole: Sequence[str], held: Sequence[int]) -> None:
        rows.append([role, *whole, *(_gib(value) for value in (held if few else (min(held), max(held))))])

    for role, share in ranks[0].roles.items():
        whole = (f"{share.parameters:,}", _gib(share.stored_bytes))
        row(role, whole, [held.roles[role].held_bytes for held in ranks])
    if any(held.optimizer_bytes for held in ranks):
        row("optimizer", ("", ""), [held.optimizer_bytes for held in ranks])
    row("peak memory", ("", ""), [held.peak_bytes for held in ranks])
    return Table(f"What each rank holds {moment}, in GiB", ["role", "parameters", "all of it", *columns], rows)


def _gib(count: int) -> str:
    return f"{count / 2**30:.3f}"
