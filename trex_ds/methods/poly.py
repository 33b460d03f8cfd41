"""Poly and MHR: tasks choose among skills, each a LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trex_ds.methods.base import method
from trex_ds.methods.limits import CHECKPOINTING, PACKING
from trex_ds.methods.peft import Excluded, PeftMethod, Targets


@dataclass
class PolyFields(Excluded, Targets):
    """Fields of both methods."""

    r: int = 8
    """LoRA rank of each skill."""
    n_skills: int = 4
    """Skills, each a LoRA, that the tasks share."""


class ByTask(PeftMethod):
    """A method whose layers read each row's task."""

    peft_type = "POLY"
    refuses = {
        PACKING: "PEFT's Poly mixes skills by the task of a row, and packed rows hold examples of several",
        CHECKPOINTING: "PEFT's Poly has forgotten the tasks of a pass when its layers run again",
    }
    lora_based = True
    not_planned = "its layers read each row's task, and a plan's rows have none"
    needs_tasks = True


@method
class Poly(PolyFields, ByTask):
    """Poly (arXiv 2202.13914)."""

    method: Literal["poly"] = "poly"


@method
class Mhr(PolyFields, ByTask):
    """MHR (arXiv 2211.03831): as Poly, chosen for parts of the features apart."""

    method: Literal["mhr"] = "mhr"
    n_splits: int = 4
    """Parts of each skill that a task chooses apart from the others; must divide all features."""

    def problems(self) -> list[str]:
        """See `Method.problems`."""
        found = super().problems()
        if not found and self.n_splits == 1:
            found.append("n_splits: 1 makes Poly of MHR; take at least 2, or adapter.method poly")
        return found
