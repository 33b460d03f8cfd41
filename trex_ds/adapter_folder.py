"""The folder of a saved adapter: which files it has, which it needs, and what is in those that are not tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trex_ds.files import atomic_path, write_json
from trex_ds.methods.config import METHODS
from trex_ds.methods.trex import TRex

CONFIG_FILE = "adapter_config.json"
"""PEFT's configuration of the method."""
WEIGHTS_FILE = "adapter_model.safetensors"
CENTROIDS_FILE = "centroids.safetensors"
"""Cluster centroids, for a method with intuition."""
RECIPE_FILE = "recipe.yaml"
"""The resolved recipe of the training."""
TASKS_FILE = "tasks.json"
"""Names of the tasks in the order of their numbers, for a method that learns tasks apart."""
FORMS_FILE = "prompts.json"
"""The form in which each source's prompts were put: see `trex_ds.tasks.forms`."""
IDENTITY_FILE = "base_model.json"
"""What the base model is: see `trex_ds.modeling.identity`."""

ADAPTER_FOLDER = "adapter"
"""Name of the folder in that of a training run, which holds the files beside the first two as well."""


@dataclass(frozen=True)
class AdapterFolder:
    """A folder that holds, or is to hold, an adapter."""

    path: Path

    def file(self, name: str) -> Path:
        """The path of one of the files, which may not exist."""
        return self.path / name

    @property
    def config(self) -> dict[str, Any] | None:
        """PEFT's configuration; None if there is none."""
        return self._read_json(CONFIG_FILE)

    @property
    def is_trex(self) -> bool:
        """Whether the method is T-REX."""
        return self._peft_type == TRex.peft_type

    @property
    def answers_by_task(self) -> bool:
        """Whether the method needs the task of each prompt."""
        return any(method.needs_tasks for method in METHODS.values() if method.peft_type == self._peft_type)

    @property
    def _peft_type(self) -> str | None:
        return (self.config or {}).get("peft_type")

    @property
    def has_centroids(self) -> bool:
        """Whether the adapter names centroids, without which it computes nothing."""
        return (self.config or {}).get("centroids_fingerprint") is not None

    def missing(self, *, peft_only: bool = False) -> list[str]:
        """Names of files that the adapter needs and the folder lacks.

        Args:
            peft_only: what PEFT itself needs, for an adapter that was trained elsewhere.
        """
        needed = [CONFIG_FILE, WEIGHTS_FILE]
        if not peft_only:
            needed += [CENTROIDS_FILE] if self.has_centroids or self.config is None else []
            needed += [RECIPE_FILE, *([TASKS_FILE] if self.answers_by_task else [])]
        return [name for name in needed if not self.file(name).is_file()]

    def problem(self, *, peft_only: bool = False) -> str | None:
        """Message for a folder that is not there, or lacks files that the adapter needs; None for a whole one.

        Args:
            peft_only: what PEFT itself needs, for an adapter that was trained elsewhere.
        """
        if not self.path.is_dir():
            return f"no folder {str(self.path)!r} in {Path.cwd()}"
        missing = self.missing(peft_only=peft_only)
        if not missing:
            return None
        inner = self.file(ADAPTER_FOLDER)  # where a training run's folder has it
        meant = not AdapterFolder(inner).missing(peft_only=peft_only)
        hint = f"did you mean {inner}?" if meant else "copy it again from where it was saved"
        return f"{self.path} has no {', '.join(missing)}; {hint}"

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The resolved recipe as plain values; None if there is none."""
        file = self.file(RECIPE_FILE)
        return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write the resolved recipe, given as plain values; makes the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.file(RECIPE_FILE)) as temporary:
            temporary.write_text(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True), encoding="utf-8")

    @property
    def tasks(self) -> list[str] | None:
        """Names of the tasks in the order of their numbers; None if they are not recorded."""
        return self._read_json(TASKS_FILE)

    def write_tasks(self, tasks: Sequence[str]) -> None:
        """Record the names of the tasks in the order of their numbers."""
        self._write_json(TASKS_FILE, list(tasks))

    @property
    def forms(self) -> Mapping[Any, Sequence[str]] | None:
        """The sources that were trained on, by the form of their prompts; None in a folder without the record."""
        return self._read_json(FORMS_FILE)

    def write_forms(self, forms: Mapping[Any, Sequence[str]]) -> None:
        """Record the forms of the prompts."""
        self._write_json(FORMS_FILE, forms)

    def _read_json(self, name: str) -> Any:
        file = self.file(name)
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def _write_json(self, name: str, content: Any) -> None:
        write_json(self.file(name), content)
