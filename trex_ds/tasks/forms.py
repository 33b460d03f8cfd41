"""The form in which an adapter's prompts were put to it, as its folder records it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trex_ds.tasks.registry import kinds

Form = Literal["chat", "line", "plain"]
"""chat: in the tokenizer's chat template; line: ended by a line break, for want of a template; plain: as it stands."""
Forms = Mapping[Form, Sequence[str]]
"""The sources that were trained on, by the form of their prompts."""


def forms_of(tasks: Sequence[Mapping[str, Any]], has_template: bool) -> Forms:
    """The forms of a recipe's entries.

    Args:
        tasks: the entries, as in a recipe's file.
        has_template: whether the tokenizer has a chat template.
    """
    found: dict[Form, list[str]] = {}
    for entry in tasks:
        if entry.get("train_examples") != 0:
            kind = kinds().get(entry["source"].partition(":")[0])
            plain = kind is not None and kind.plain
            found.setdefault("plain" if plain else "chat" if has_template else "line", []).append(entry["source"])
    return found


def is_plain(
    forms: Forms, task: str | None, wanted: Literal["chat", "plain"] | None, tasks: Sequence[str] = ()
) -> bool:
    """Whether a prompt is put in plain form.

    Args:
        forms: the adapter's.
        task: that the prompt is of, if it is known.
        tasks: all that the adapter learned apart.
        wanted: what the user asks for; it comes first.

    Raises:
        ValueError: the adapter was trained on both, and nothing says which is meant: no task, or one that a group
            of lm_eval may hold.
    """
    if wanted is not None:
        return wanted == "plain"
    plain = forms.get("plain", ())
    others = [source for form, sources in forms.items() if form != "plain" for source in sources]
    if f"lm_eval:{task}" in plain:
        return True
    groups = [source for source in plain if source.removeprefix("lm_eval:") not in tasks]
    if f"gym:{task}" in others or (task is not None and not groups):
        return False
    if plain and others:
        raise ValueError(
            f"the adapter was trained on prompts as they stand ({', '.join(plain)}) and on messages "
            f"to an assistant ({', '.join(others)}): say by --form plain or --form chat which it is to get"
        )
    return bool(plain)
