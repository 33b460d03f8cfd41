"""Starting the process group, for `deepspeed`, `torchrun` and plain `python` alike."""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from trex_ds.config import ConfigError
from trex_ds.distributed import rank


def start_distributed(timeout_minutes: float) -> torch.device:
    """Join the job's process group (made for one process if no launcher did); return this rank's device."""
    import deepspeed

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(probe.getsockname()[1])
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        # DeepSpeed would build its shared-memory kernel here: most of a minute, and a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        # DeepSpeed's own default lets a lost peer hang the job for half an hour.
        deepspeed.init_distributed(
            dist_backend="nccl" if on_gpu else "gloo",
            timeout=timedelta(minutes=timeout_minutes),
            verbose=False,
        )
    return device


@contextmanager
def naming_the_rank() -> Iterator[None]:
    """End the process at once when the block raises, saying which rank failed and where.

    Waiting for peers in an orderly exit could hang: they may be inside a collective that this rank
    will never join. The launcher ends them when it sees this process gone.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        traceback.print_exc()
        message = f"rank {rank()} on {socket.gethostname()} failed: {type(error).__name__}: {error}"
        print(message, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)


def quiet_libraries() -> None:
    """One rank logs; the others only warn about what is wrong."""
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for name in ("deepspeed", "DeepSpeed", "transformers", "sentence_transformers", "httpx", "torch"):
        logging.getLogger(name).setLevel(logging.WARNING if first else logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of a kernel that is not used here
    # Deprecations inside the libraries are no news to users; other ranks would say everything again.
    warnings.simplefilter("ignore", category=FutureWarning if first else Warning)
