"""Rendered examples as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.tasks.base import Example


def show(examples: Sequence[Example], count: int) -> str:
    """The first `count` examples, with white space made visible where prompt and answer meet."""
    return "\n".join(map(_shown, examples[:count]))


def _shown(example: Example) -> str:
    lines = [f"{role}: {text}" for role, text in example.history]
    lines += [f"prompt: {example.prompt}", f"answer: {example.answer!r}"]
    if example.choices:
        lines.append(f"choices: {list(example.choices)}")
    return "\n".join([*lines, ""])
