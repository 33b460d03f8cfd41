"""`file:PATH`: the user's own examples, JSONL with one object a line.

    {"prompt": "2 + 2 =", "answer": "4", "task": "sums", "choices": ["3", "4"]}

`task` (default: the file's name) and `choices` are optional; a file may hold many tasks.
"""

from __future__ import annotations

import difflib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trex_ds.tasks.base import Example, Task
from trex_ds.tasks.seeding import choose, stable_fraction

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig

logger = logging.getLogger(__name__)

_KEYS = ("prompt", "answer", "task", "choices")
_PREFIX = "file:"
_SHOWN = 20


def problems(location: str, config: TaskConfig) -> list[str]:
    """Files that do not exist."""
    found = _path_problems("source", location)
    if config.evaluation_source is None:
        return found
    if not config.evaluation_source.startswith(_PREFIX):
        found.append(f"evaluation_source: {config.evaluation_source!r} does not begin with {_PREFIX}")
    else:
        found += _path_problems("evaluation_source", config.evaluation_source.removeprefix(_PREFIX))
    return found


def unused(config: TaskConfig) -> list[str]:
    """Fields that have no effect."""
    return ["options"] if config.evaluation_source is None else ["options", "evaluation_fraction"]


def load(location: str, config: TaskConfig) -> list[Task]:
    """The tasks of the file, in order of their first line.

    Without an evaluation file, a hash of seed and prompt says on which side an example falls: equal
    prompts stay together, and neither the order of lines nor lines added later move an example.
    With one, training examples whose prompt it has are dropped.

    Raises:
        ValueError: bad lines (all of them are counted, the first 20 shown), or a task without a
            train or an evaluation example.
    """
    path = Path(location)
    examples = read_examples(path, path.stem)
    if config.evaluation_source is None:
        held_out = [e for e in examples if _is_held_out(e.prompt, config)]
        way_out = "add examples, raise or lower evaluation_fraction, or give an evaluation_source"
    else:
        # Lines that name no task belong to the same task in both files.
        held_out = read_examples(Path(config.evaluation_source.removeprefix(_PREFIX)), path.stem)
        way_out = "every task needs examples in both source and evaluation_source, with other prompts"
    held_out_prompts = {example.prompt for example in held_out}
    train = [example for example in examples if example.prompt not in held_out_prompts]
    if config.evaluation_source is not None and len(train) < len(examples):
        logger.warning(
            "%s: dropped %d of %d training examples, whose prompts are in %s",
            *(path, len(examples) - len(train), len(examples), config.evaluation_source),
        )

    tasks, missing = [], []
    for name in dict.fromkeys(example.task for example in [*examples, *held_out]):
        sides = [[e for e in side if e.task == name] for side in (train, held_out)]
        if not all(sides):
            missing.append(f"task {name!r} has {len(sides[0])} training and {len(sides[1])} evaluation examples")
            continue
        wanted = {"train_examples": config.train_examples, "evaluation_examples": config.evaluation_examples}
        for side, (field, count) in zip(sides, wanted.items(), strict=True):
            if count is not None and count > len(side):
                logger.warning("%s: %s is %d, task %r has only %d", path, field, count, name, len(side))
        train_chosen, held_out_chosen = [
            choose(side, n, config.seed) for side, n in zip(sides, wanted.values(), strict=True)
        ]
        tasks.append(Task(name, train_chosen, held_out_chosen, weight=config.weight))
    if missing:
        raise ValueError(f"{path}: {'; '.join(missing)}; at least one of each is needed: {way_out}")
    return tasks


def read_examples(path: Path, default_task: str) -> list[Example]:
    """The examples of a JSONL file; empty lines are skipped.

    Raises:
        ValueError: no example, or bad lines, each as `file:line: what is wrong`.
    """
    examples, bad = [], []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                examples.append(_parse(line, default_task))
            except ValueError as error:
                bad.append(f"{path}:{number}: {error}")
    if bad:
        more = [f"... and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
        count = "1 bad line" if len(bad) == 1 else f"{len(bad)} bad lines"
        raise ValueError("\n".join([f"{path}: {count}", *bad[:_SHOWN], *more]))
    if not examples:
        raise ValueError(f'{path}: no examples; write one JSON object a line, with "prompt" and "answer"')
    return examples


def _is_held_out(prompt: str, config: TaskConfig) -> bool:
    return stable_fraction(config.seed, "split", prompt) < config.evaluation_fraction


def _path_problems(field: str, location: str) -> list[str]:
    if Path(location).is_file():
        return []
    return [f"{field}: no file {location!r} in {Path.cwd()}"]


def _parse(line: bytes, default_task: str) -> Example:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(record, dict):
        raise ValueError(f"must be an object with prompt and answer, got {_shown(record)}")
    found = [_unknown_key(key) for key in record if key not in _KEYS]
    for key in ("prompt", "answer"):
        if key not in record:
            found.append(f"{key} is missing")
    found += [
        f"{key} must be text that is not empty, got {_shown(record[key])}"
        for key in ("prompt", "answer", "task")
        if key in record and not _is_text(record[key])
    ]
    choices = record.get("choices", [])
    if "choices" in record:
        found += _choices_problems(choices, record.get("answer"))
    if found:
        raise ValueError("; ".join(found))
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # such as "\\ud800", which JSON allows and tokenizers do not
        raise ValueError("has half of a surrogate pair, which is no character") from None
    return Example(record["prompt"], record["answer"], record.get("task", default_task), tuple(choices))


def _unknown_key(key: str) -> str:
    near = difflib.get_close_matches(key, _KEYS, n=1)
    return f"unknown key {key!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(_KEYS)}")


def _choices_problems(choices: Any, answer: Any) -> list[str]:
    if not isinstance(choices, list) or len(choices) < 2 or not all(map(_is_text, choices)):
        return [f"choices must be a list of at least two texts, got {_shown(choices)}"]
    if len(set(choices)) < len(choices):
        return [f"choices has one twice: {_shown(choices)}"]
    if _is_text(answer) and answer not in choices:
        return [f"answer {_shown(answer)} is not among the choices {_shown(choices)}"]
    return []


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
