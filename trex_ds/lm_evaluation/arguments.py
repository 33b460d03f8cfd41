"""The command line of launch/eval.py, checked whole before anything is loaded."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from trex_ds.adapter_folder import ADAPTER_FOLDER, AdapterFolder
from trex_ds.config import ConfigError
from trex_ds.files import make_writable
from trex_ds.modeling.config import ModelConfig
from trex_ds.tasks.harness.index import name_problem, refusal

_CANNOT_ASK = "answers by task (poly, mhr), and lm-evaluation-harness does not tell of which task a question is"


@dataclass(frozen=True)
class BenchmarkArguments:
    """What to evaluate, on what, and where to write."""

    tasks: tuple[str, ...]
    adapter: str | None
    """Folder of a T-REX adapter, with its base model's name, centroids and embedder."""
    model: ModelConfig | None
    """A base model, where there is no adapter; with one, where its base model is now."""
    lora: str | None
    """Folder of a PEFT adapter for `model`."""
    base: bool
    """Whether the base model is evaluated beside the adapter."""
    limit: int | None
    """Items of each task, the first ones; None: all."""
    num_fewshot: int | None
    """Solved examples before each item; None: as the task says."""
    batch_size: int
    apply_chat_template: bool
    mirror: str | None
    output: Path


def parse(argv: Sequence[str], description: str) -> BenchmarkArguments:
    """The arguments of a command line.

    Raises:
        ConfigError: with all that is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="launch/eval.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", required=True, help="comma-separated tasks, groups or tags of lm-eval")
    parser.add_argument("--adapter", help="the adapter/ folder of a training run; it names its base model itself")
    parser.add_argument(
        "--model",
        help="a base model: a folder, a hub id, or embedded:smollm2-135m-instruct; with --adapter: its base model, if "
        "that is no longer where it was",
    )
    parser.add_argument("--lora", help="with --model: the folder of a PEFT adapter for it")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="with --model and no --adapter: its weights",
    )
    parser.add_argument("--no_base", action="store_true", help="do not evaluate the base model beside the adapter")
    parser.add_argument("--limit", type=int, help="items of each task, the first ones; default: all")
    parser.add_argument("--num_fewshot", type=int, help="solved examples before each item; default: as the task says")
    parser.add_argument("--batch_size", type=int, default=16, help="rows of a forward pass on each rank")
    parser.add_argument("--apply_chat_template", action="store_true", help="put prompts into the model's chat template")
    parser.add_argument("--mirror", help="a folder whose <hub id> subfolders stand in for hub datasets")
    parser.add_argument("--output", default="runs/evaluation", help="folder for the results; default: runs/evaluation")
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)  # launchers add it
    given = parser.parse_args(argv)
    model = ModelConfig(given.model, dtype=cast(Literal["bfloat16", "float32"], given.dtype)) if given.model else None
    arguments = BenchmarkArguments(
        tasks=tuple(dict.fromkeys(name.strip() for name in given.tasks.split(",") if name.strip())),
        adapter=given.adapter,
        model=model,
        lora=given.lora,
        base=not given.no_base,
        limit=given.limit,
        num_fewshot=given.num_fewshot,
        batch_size=given.batch_size,
        apply_chat_template=given.apply_chat_template,
        mirror=given.mirror,
        output=Path(given.output),
    )
    problems = _problems(arguments)
    if problems:
        raise ConfigError(problems)
    return arguments


def _problems(arguments: BenchmarkArguments) -> list[str]:
    found = _model_problems(arguments)
    if not arguments.tasks:
        found.append("--tasks: names none; give some, as --tasks boolq,winogrande")
    found += [f"--tasks: {problem}" for name in arguments.tasks if (problem := name_problem(name) or refusal(name))]
    for name, least in {"limit": 1, "num_fewshot": 0, "batch_size": 1}.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            found.append(f"--{name}: must be at least {least}, got {value}")
    if int(os.environ.get("RANK", "0")) == 0:  # which alone writes
        try:
            make_writable(arguments.output)
        except OSError as error:
            found.append(f"--output: {arguments.output} cannot be written to: {error}; name another folder")
    if arguments.mirror is not None and not Path(arguments.mirror).is_dir():
        found.append(f"--mirror: no folder {arguments.mirror!r} in {Path.cwd()}")
    return found


def _model_problems(arguments: BenchmarkArguments) -> list[str]:
    if arguments.adapter is not None:
        found = [] if arguments.model is None else _base_problems(arguments.model)
        if arguments.lora is not None:
            found.append("--lora: not together with --adapter; give one of the two")
        found += _missing("--adapter", arguments.adapter)
        if AdapterFolder(Path(arguments.adapter)).answers_by_task:
            ask = "ask it with launch/answer.py --task NAME"
            found.append(f"--adapter: {arguments.adapter} {_CANNOT_ASK}; {ask}")
        return found
    if arguments.model is None:
        beside_lora = " (--lora needs the --model that it was trained on)" if arguments.lora else ""
        return [f"--adapter or --model: one of them is needed{beside_lora}"]
    found = _base_problems(arguments.model)
    if arguments.lora is not None:
        lora = AdapterFolder(Path(arguments.lora))
        found += _missing("--lora", arguments.lora, peft_only=True)
        if lora.is_trex:
            found.append(f"--lora: {arguments.lora} holds a T-REX adapter; give it as --adapter, without --model")
        if lora.answers_by_task:
            found.append(f"--lora: {arguments.lora} {_CANNOT_ASK}; give an adapter of another method")
    return found


def _base_problems(model: ModelConfig) -> list[str]:
    return [f"--model: {problem.removeprefix('name: ')}" for problem in model.problems_here()]


def _missing(option: str, folder: str, *, peft_only: bool = False) -> list[str]:
    if not Path(folder).is_dir():
        return [f"{option}: no folder {folder!r} in {Path.cwd()}"]
    missing = AdapterFolder(Path(folder)).missing(peft_only=peft_only)
    if not missing:
        return []
    inner = Path(folder) / ADAPTER_FOLDER  # where a training run's folder has it
    meant = not AdapterFolder(inner).missing(peft_only=peft_only)
    hint = f"did you mean {inner}?" if meant else "copy it again from where it was saved"
    return [f"{option}: {folder} has no {', '.join(missing)}; {hint}"]
