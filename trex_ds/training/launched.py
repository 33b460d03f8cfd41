"""The start of every command that runs a recipe on several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trex_ds.launching.preflight import check_nodes
from trex_ds.launching.process_group import naming_the_rank, start_distributed
from trex_ds.quiet import quiet_libraries
from trex_ds.training.recipe import Recipe


@contextmanager
def launched(recipe: Recipe) -> Iterator[torch.device]:
    """Join the job's process group and check all nodes; the block gets this process's device.

    Every process of the launch enters it. An exception in the block ends the process at once and names its rank.

    Raises:
        ConfigError: the nodes cannot work together.
    """
    quiet_libraries()
    device = start_distributed(recipe.training.timeout_minutes)
    with naming_the_rank():
        check_nodes(
            Path(recipe.output_dir),
            recipe.data.cache_path(),
            saves=recipe.training.save_every is not None,
            resumes=recipe.training.resume,
        )
        yield device
