"""Turns a document of lm-evaluation-harness into a prompt and its answer, by the task's own requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MISSING = ("", "-1", -1, None)


@dataclass(frozen=True)
class Rendered:
    """A document as its task's evaluation sees it."""

    prompt: str
    """The context, as it stands."""
    answer: str
    """The right continuation, with the delimiter before it."""
    choices: tuple[str, ...]
    """All continuations; or all contexts, where a task asks for the same text after each of them."""
    contexts: tuple[str, ...]
    """The distinct contexts of all its requests."""


def render(task: Any, doc: Mapping[str, Any], doc_id: int) -> Rendered | None:
    """The document's own zero-shot requests, and the answer that they count as right; None without a label.

    Args:
        task: lm-eval's ConfigurableTask.
        doc: one of its documents.
        doc_id: where the document lies in its split.

    Raises:
        ValueError: the task's own functions fail on the document, or its label is out of range.
    """
    where = f"{task.config.task}, document {doc_id}"
    if task.OUTPUT_TYPE == "multiple_choice" and _has_no_label(doc):
        return None
    try:
        requests = requests_of(task, doc, doc_id)
        contexts = tuple(dict.fromkeys(request.args[0] for request in requests))
        if task.OUTPUT_TYPE == "multiple_choice":
            choices = task.doc_to_choice(doc)
            label = _first(task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc))
        else:
            answer = _target(task, doc)
    except Exception as error:
        raise ValueError(
            f"{where}: lm-eval's own functions fail on it: {type(error).__name__}: {error}; the document may lack "
            "a label or a field"
        ) from error
    if task.OUTPUT_TYPE == "multiple_choice":
        if label in _MISSING:
            return None
        gold = requests[_index(label, choices, where)]
        prompt, answer = gold.args[:2]
        shown = contexts if task.multiple_input else tuple(r.args[1] for r in requests[: len(choices)])
        return Rendered(prompt, answer, shown, contexts)
    if not answer.strip():
        return None
    return Rendered(contexts[0], answer, (), contexts)


def requests_of(task: Any, doc: Mapping[str, Any], doc_id: int) -> list[Any]:
    """The document's own requests to a model, without few-shot examples."""
    context = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    made = task.construct_requests(doc=doc, ctx=context, metadata=(task.config.task, doc_id, task.config.repeats))
    return made if isinstance(made, list) else [made]


def _has_no_label(doc: Mapping[str, Any]) -> bool:
    # Some tasks turn a missing label into a choice (copa) or fail on it (winogrande).
    return doc.get("label", 0) in _MISSING or any(doc.get(key, 0) == "" for key in ("answer", "answerKey"))


def _target(task: Any, doc: Mapping[str, Any]) -> str:
    target = _first(task.doc_to_target(doc))
    if task.OUTPUT_TYPE == "loglikelihood":
        return str(target)
    if task.config.doc_to_choice is not None:
        target = task.doc_to_choice(doc)[target]
    return f"{task.config.target_delimiter}{target}" if str(target) else ""


def _first(target: Any) -> Any:
    if isinstance(target, list):
        return target[0] if target else ""
    return target


def _index(label: Any, choices: list[str], where: str) -> int:
    if isinstance(label, str):
        if label not in choices:
            raise ValueError(f"{where}: its label {label!r} is not one of the choices {choices}; correct the data")
        return choices.index(label)
    if not isinstance(label, int) or not 0 <= label < len(choices):
        raise ValueError(f"{where}: its label {label!r} is not in 0..{len(choices) - 1}; correct the data")
    return int(label)
