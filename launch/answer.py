"""Answer prompts with a saved adapter: python launch/answer.py --adapter DIR "How many ...?"."""

import argparse

from trex_ds.files import ensure_home
from trex_ds.quiet import quiet_imports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="+", help="one or more prompts, as raw text")
    parser.add_argument("--adapter", required=True, help="the adapter/ folder of a training run")
    parser.add_argument("--model", help="its base model, if that is no longer where it was: a folder or a hub id")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer, in tokens")
    parser.add_argument("--task", help="that the prompts are of, for an adapter by poly or mhr")
    parser.add_argument(
        "--form",
        choices=["chat", "plain"],
        help="how prompts are put: as messages to an assistant, or as they stand; default: as in training",
    )
    arguments = parser.parse_args()

    ensure_home()
    quiet_imports()
    from transformers.utils import logging as transformers_logging

    from trex_ds.answering import Answerer
    from trex_ds.config import print_any_text

    print_any_text()
    transformers_logging.disable_progress_bar()

    try:
        answerer = Answerer.from_adapter(arguments.adapter, arguments.model)
        answers = answerer(arguments.prompts, arguments.max_new_tokens, arguments.task, arguments.form)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    for prompt, answer in zip(arguments.prompts, answers, strict=True):
        print(f"{prompt}\n-> {answer}")


if __name__ == "__main__":
    main()
