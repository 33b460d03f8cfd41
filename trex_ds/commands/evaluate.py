"""Evaluate an adapter on tasks of lm-evaluation-harness, beside its base model.

Usage:
    trex-ds eval --tasks NAMES --adapter FOLDER [OPTIONS]
    trex-ds eval --tasks NAMES --model MODEL [--lora FOLDER] [OPTIONS]

Examples:
    trex-ds eval --adapter runs/quickstart/adapter --tasks boolq,winogrande
    deepspeed --num_gpus 8 --module trex_ds eval --model owner/model --lora lora/ --tasks mmlu
"""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.launching.processes import check_processes_fit


def main(argv: Sequence[str]) -> None:
    """Read the options and evaluate; every process holds the whole model."""
    from trex_ds.lm_evaluation.arguments import parse

    arguments = parse(argv, __doc__)
    check_processes_fit()

    from trex_ds.lm_evaluation.run import run

    run(arguments)
