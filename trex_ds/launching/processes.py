"""Check that the started processes fit this machine, made before anything slow is imported."""

from __future__ import annotations

import os
import socket

from trex_ds.config import ConfigError


def check_processes_fit() -> None:
    """Refuse more processes on this machine than it has accelerators (GPUs, or CPU cores without one).

    DS_ACCELERATOR=cpu hides the GPUs from this process: DeepSpeed heeds it, torch does not.

    Raises:
        ConfigError: with both numbers.
    """
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    processes = int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if processes == 1:
        return
    available, kind = _accelerators()
    if processes > available:
        raise ConfigError(
            [
                f"{processes} processes were started on {socket.gethostname()}, which has {available} {kind}; "
                f"start at most {available}: deepspeed --num_accelerators {available} ..."
            ],
        )


def _accelerators() -> tuple[int, str]:
    if os.environ.get("DS_ACCELERATOR") != "cpu":
        import torch  # slow, and slower for each process too many

        if torch.cuda.is_available():
            return torch.cuda.device_count(), "GPUs"
    return len(os.sched_getaffinity(0)), "CPU cores"
