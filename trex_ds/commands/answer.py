"""Answer prompts with a trained adapter.

Usage:
    trex-ds answer --adapter FOLDER [OPTIONS] PROMPT ...

A prompt is raw text. Put prompts that begin with two hyphens after `--`.

Examples:
    trex-ds answer --adapter runs/quickstart/adapter "How many legs have two cats?"
    trex-ds answer --adapter runs/mine/adapter --max_new_tokens 200 "Tell a story." "Tell another."
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from trex_ds.adapter_folder import AdapterFolder
from trex_ds.config import ConfigError, read_flags, section


@section
class Options:
    """What to answer, and with what."""

    adapter: str
    """The adapter/ folder of a training run."""
    model: str | None = None
    """The base model, a folder or a hub id; null: where it was in training."""
    max_new_tokens: PositiveInt = 64
    """Longest answer, in tokens."""
    task: str | None = None
    """The prompts' task; needed for adapters of poly and mhr."""
    form: Literal["chat", "plain"] | None = None
    """Form of the prompts: chat messages to an assistant, or plain text; null: as in training."""
    prompts: list[str] = field(default_factory=list)
    """The prompts; usually given without this name."""

    def problems(self) -> list[str]:
        """An adapter that is not whole, or no prompt."""
        problem = AdapterFolder(Path(self.adapter)).problem()
        found = [f"adapter: {problem}"] if problem else []
        if not self.prompts:
            found.append('no prompt is given; give one or more, as "How many legs have two cats?"')
        return found


def main(argv: Sequence[str]) -> None:
    """Read the options and print each prompt with its answer."""
    options = read_flags(Options, argv, __doc__, words="prompts")

    from transformers.utils import logging as transformers_logging

    from trex_ds.answering import Answerer

    transformers_logging.disable_progress_bar()
    try:
        answerer = Answerer.from_adapter(options.adapter, options.model)
        answers = answerer(options.prompts, options.max_new_tokens, options.task, options.form)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError([str(error)]) from None
    for prompt, answer in zip(options.prompts, answers, strict=True):
        print(f"{prompt}\n-> {answer}")
