"""The program `trex-ds`, also `python -m trex_ds`: finds the command and runs it."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from trex_ds.version import __version__
from trex_ds.wording import did_you_mean

COMMANDS = {
    "train": ("train", "Train an adapter as a recipe says."),
    "eval": ("evaluate", "Evaluate an adapter on tasks of lm-evaluation-harness, beside its base model."),
    "compare": ("compare", "Compare methods over seeds, each with a learning rate of its own."),
    "report": ("report", "Report whether the claims of the T-REX paper hold for a recipe's model and data."),
    "plan": ("plan", "Plan the memory and the speed of a recipe on a machine that need not be there."),
    "prepare": ("prepare", "Prepare a recipe's data and models ahead of its training."),
    "validate": ("validate", "Check a recipe's data and model before training."),
    "answer": ("answer", "Answer prompts with a trained adapter."),
    "recipes": ("recipes", "List the recipes of this package, or copy one."),
    "schema": ("schema", "Print the JSON schema of a recipe, for editors."),
}
"""Module and first sentence of each command. They stand here too, so that no command is imported for a list of them."""


def main(command: str | None = None) -> None:
    """Run the command that the command line names, and end the process with its exit code.

    Args:
        command: one of COMMANDS, where the command line does not name it (scripts that are a command each).
    """
    # Launchers put it in front of the command.
    words = [word for word in sys.argv[1:] if not word.startswith(("--local_rank=", "--local-rank="))]
    first = os.environ.get("RANK", "0") == "0"
    if command is None and words[:1] in ([], ["--help"], ["-h"], ["help"]):
        if first:
            print(_help(), file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    if command is None and words[0] == "--version":
        print(f"trex_ds {__version__}")
        sys.exit(0)
    if command is None:
        command, *words = words
    if command not in COMMANDS:
        if first:
            hint = did_you_mean(command, COMMANDS, "there are")
            print(f"error: no command {command!r}; {hint}", file=sys.stderr)
        sys.exit(2)

    from trex_ds.config import run_or_exit

    def run() -> None:
        # Imported here, where what libraries say meanwhile is silenced.
        if code := import_module(f"trex_ds.commands.{COMMANDS[command][0]}").main(words):
            sys.exit(code)

    run_or_exit(run)


def _help() -> str:
    commands = [f"  {name:10}{sentence}" for name, (_, sentence) in COMMANDS.items()]
    return "\n".join(
        [
            "T-REX adapters for LLMs, trained with DeepSpeed.",
            "",
            "Usage:",
            "  trex-ds COMMAND [OPTIONS]",
            "  trex-ds COMMAND --help",
            "  trex-ds --version",
            "",
            "Commands:",
            *commands,
            "",
            "On several GPUs or nodes, a launcher starts the command:",
            "  deepspeed --num_gpus 8 --module trex_ds train --config RECIPE",
            "  torchrun --nproc_per_node 8 -m trex_ds train --config RECIPE",
        ]
    )


if __name__ == "__main__":
    main()
