"""Evaluate an adapter on tasks of lm-evaluation-harness, beside its base model.

python launch/eval.py --adapter runs/quickstart/adapter --tasks boolq,winogrande
deepspeed launch/eval.py --model owner/model --lora DIR --tasks mmlu      one whole model a rank
"""

import sys

from trex_ds.config import run_or_exit
from trex_ds.launching.processes import check_processes_fit


def main() -> None:
    check_processes_fit()
    from trex_ds.lm_evaluation.arguments import parse

    arguments = parse(sys.argv[1:], __doc__ or "")

    from trex_ds.lm_evaluation.run import run

    run(arguments)


if __name__ == "__main__":
    run_or_exit(main)
