"""Whether the reference answers of an evaluation fit into the tokens that are generated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Reach:
    """The reference answers of one task that are generated, by their lengths in tokens without what ends them."""

    task: str
    most: int
    """Limit of generated tokens."""
    answers: int = 0
    beyond: int = 0
    """Number of answers that are longer, so that they can never score."""
    longest: int = 0

    def add(self, tokens: int) -> None:
        """Count an answer."""
        self.answers += 1
        self.beyond += tokens > self.most
        self.longest = max(self.longest, tokens)

    def describe(self) -> str:
        """What is wrong, for a task of which some answers are too long."""
        which = "all" if self.beyond == self.answers else f"{self.beyond} of"
        return (
            f"task {self.task!r}: {which} {self.answers} evaluation answers have more tokens than "
            f"evaluation.max_new_tokens, {self.most}, and can never score; with their ends they take up to "
            f"{self.longest + 1}: raise it, or take shorter answers"
        )
