"""Tokenizing of texts, where a tokenizer's special tokens are at stake."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Reading = Literal["alone", "alone, escaped", "written", "marked"]
"""How a tokenizer reads a text.

alone: it adds the special tokens that it puts before a text; escaped: and takes names of special tokens for plain
text. written: a template has written the special tokens; marked: and names of special tokens that are plain text
are marked by transformers' `mark_control_tokens`.
"""


@lru_cache(maxsize=4)
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Finds the names of the tokenizer's special tokens in a text."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    return re.compile("|".join(re.escape(name) for name in names if name.strip()) or "(?!)")


def read_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, Reading]]) -> list[list[int]]:
    """The ids of texts, each with how it is read, in few calls of the tokenizer."""
    found: list[list[int]] = [[] for _ in texts]
    for reading in dict.fromkeys(reading for _, reading in texts):
        places = [i for i, (_, wanted) in enumerate(texts) if wanted == reading]
        for place, ids in zip(places, read_texts(tokenizer, [texts[i][0] for i in places], reading), strict=True):
            found[place] = ids
    return found


def read_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], reading: Reading) -> list[list[int]]:
    """The ids of each text, without an end of sequence that the tokenizer adds: more is to come."""
    alone = reading in ("alone", "alone, escaped")
    *found, letter = _ids(tokenizer, [*texts, "a"], reading, special=alone)
    ends = alone and letter[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
    return [ids[:-1] for ids in found] if ends else found


def read_on(tokenizer: PreTrainedTokenizerBase, text: str, reading: Reading) -> list[int]:
    """The ids of a text that continues another: without the space that some tokenizers put before a text."""
    line, both, own = _ids(tokenizer, ["\n", f"\n{text}", text], reading, special=False)
    return both[len(line) :] if both[: len(line)] == line else own


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], reading: Reading, special: bool) -> list[list[int]]:
    settings: dict[str, Any] = {"add_special_tokens": special, "return_attention_mask": False}
    if reading == "alone, escaped":
        settings["split_special_tokens"] = True
    if reading == "marked":
        settings["sanitize_control_tokens"] = True
    return tokenizer(list(texts), **settings)["input_ids"]
