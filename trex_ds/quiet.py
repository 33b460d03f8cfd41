"""Silencing of what libraries say that users need not know, each by its name."""

from __future__ import annotations

import logging
import os
import warnings

_TALKATIVE = ("deepspeed", "DeepSpeed", "transformers", "sentence_transformers", "httpx", "torch", "datasets")


def quiet_imports() -> None:
    """Silence what libraries warn of while they are imported, and later."""
    # Deprecations inside the libraries.
    warnings.simplefilter("ignore", FutureWarning)
    # Of a kernel that is not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Of reasoning-gym's code, where it is compiled for the first time: a comparison by identity that does what it says.
    warnings.filterwarnings("ignore", '"is" with', SyntaxWarning, r".*cellpylib")
    # Where the home cannot be written to, it makes a temporary folder for its fonts, as good as any.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """One rank logs; the others only warn about what is wrong. Bars are this package's alone."""
    from transformers.utils import logging as transformers_logging

    quiet_imports()
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING if first else logging.ERROR)
    if not first:  # which would say everything again
        warnings.simplefilter("ignore", Warning)
    transformers_logging.disable_progress_bar()
