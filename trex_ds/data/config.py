"""How a recipe's examples become batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from trex_ds.config import section
from trex_ds.files import cache_folder

Learn = Literal["last_answer", "all_answers"]
Mixing = Literal["proportional", "equal", "temperature"]


@section
class DataConfig:
    """How examples become rows of tokens."""

    max_length: PositiveInt = 1024
    """Tokens of prompt and answer together; longer training examples are left out, never cut."""
    system_prompt: str | None = None
    """System message of the chat template; null: the template's own, if it has one. "" is a message
    too: one without text, in place of the template's own. An example's own system message comes before both."""
    learn: Learn = "last_answer"
    """Answers of a conversation that are learned: last_answer or all_answers. Where messages bear a weight, 0 or 1, it
    decides for its answer."""
    escape_control_tokens: bool = False
    """Read names of special tokens in prompts, answers and messages, such as <|im_end|>, as plain text; false: they
    become those tokens. lm_eval tasks are always read as lm-eval reads them."""
    mirror: str | None = None
    """Folder whose <hub id> subfolders stand in for hub datasets; looked in first."""
    cache: str | None = None
    """Folder for prepared data, which is used again where its inputs are the same. All nodes should share it. null:
    `prepared` in trex_ds's cache folder."""
    mixing: Mixing = "proportional"
    """How tasks of different sizes share an epoch: proportional to their sizes, equal, or by `temperature`."""
    temperature: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    """Temperature of `mixing: temperature`: a task of n examples has a share proportional to n^(1/temperature)."""
    left_out: NonNegativeInt = 0
    """Training examples of each task, never more than a tenth of them, that no seed trains on. A comparison chooses
    learning rates by the loss on them."""
    packing: bool = True
    """Put several examples into a row of `max_length` tokens; they do not see each other. training.micro_batch_size
    then counts such rows. false: one example a row."""

    def problems(self) -> list[str]:
        """A temperature that has no effect, and a cache that has no place."""
        found = []
        try:
            self.cache_path()
        except ValueError as error:
            found.append(f"cache: {error}")
        if self.temperature != 1.0 and self.mixing != "temperature":
            found.append(
                f"temperature: {self.temperature} has no effect with mixing: {self.mixing}; "
                "set mixing: temperature, or remove it"
            )
        return found

    def mirror_problem(self) -> str | None:
        """What is wrong with the mirror; not among `problems`, since prepared data is used without it."""
        if self.mirror is None or Path(self.mirror).is_dir():
            return None
        return f"data.mirror: no folder {self.mirror!r} in {Path.cwd()}; create it, or set it to null"

    def cache_path(self) -> Path:
        """The folder of prepared data."""
        return Path(self.cache) if self.cache else cache_folder() / "prepared"
