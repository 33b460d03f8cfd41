"""Tasks: where examples come from and how answers are scored."""

from trex_ds.tasks.base import Example, Scorer, Task, exact_match
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.sources import load_tasks

__all__ = ["Example", "Scorer", "Task", "TaskConfig", "exact_match", "load_tasks"]
