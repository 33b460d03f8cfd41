"""What tasks are made of: examples to train and to evaluate on, and a way to score an answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "evaluation"]


@dataclass(frozen=True)
class Example:
    """One prompt with its reference answer."""

    prompt: str
    answer: str
    task: str
    choices: tuple[str, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    """Turns of a conversation before the prompt, each a role and a text."""
    plain: bool = False
    """The answer continues the prompt as it stands: no chat template and no line break between them."""
    conversation: Mapping[str, Any] | None = None
    """All messages with the answer, as {"messages": [...], "tools": [...]}, where history and prompt do not say
    everything: calls of tools, their results, and weights."""
    record: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """What scoring needs beyond the answer, as plain JSON data (where an item of lm-eval lies, say); it
    never reaches the model."""

    @property
    def text(self) -> str:
        """What the example asks, in one text: the history's turns and the prompt; this is what is embedded."""
        return whole_prompt(self.history, self.prompt)


def whole_prompt(history: Iterable[Iterable[str]], prompt: str) -> str:
    """The texts of a history's turns, each a role and a text, and the prompt: what is embedded."""
    return "\n".join([*(text for _, text in history), prompt])


def right_choice(example: Example) -> int | None:
    """Position of the right one of the example's choices; None if it has none.

    Choices are answers or, where the same text is asked for after each of several contexts, prompts.
    """
    return next((example.choices.index(x) for x in (example.answer, example.prompt) if x in example.choices), None)


Scorer = Callable[[Example, str], float]
"""Takes an example and the generated text; a value in [0, 1]."""


def exact_match(example: Example, generated: str) -> float:
    """1.0 if the generated text is the reference answer up to case and white space, else 0.0."""
    return float(normalized(generated) == normalized(example.answer))


def normalized(text: str) -> str:
    """`text` without case, with single spaces for white space, and each character in one form, Unicode's NFC."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", " ".join(folded.split()))
