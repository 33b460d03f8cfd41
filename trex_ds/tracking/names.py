"""Names as MLflow takes them, distinct where those of the job are."""

from __future__ import annotations

import hashlib
import posixpath
import re

MAX_NAME = 250
_NOT_TAKEN = r"[^\w.\- :/]"
_DIGITS = 8


def mlflow_name(name: str) -> str:
    """`name`, or where MLflow does not take it: cleaned, cut and marked with digits of a hash.

    The first and the last part of a path stay, and the mark is that of what lies between: the task `en?de` of
    `eval/en?de/accuracy` and `data/en?de/rows` becomes `en_de-HASH` in both.
    """
    if _is_taken(name):
        return name
    first, _, rest = name.partition("/")
    inner, _, last = rest.rpartition("/")
    if not inner or not all(_is_taken(part) and len(part) <= MAX_NAME // 4 for part in (first, last)):
        return _marked(name, MAX_NAME)
    return f"{first}/{_marked(inner, MAX_NAME - len(first) - len(last) - 2)}/{last}"


def _marked(text: str, length: int) -> str:
    parts = re.sub(_NOT_TAKEN, "_", text).split("/")
    cleaned = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
    cleaned = f"_{cleaned}" if cleaned.startswith("..") else cleaned
    mark = "-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return cleaned[: length - len(mark)] + mark


def _is_taken(name: str) -> bool:
    is_plain = name not in ("", ".") and not name.startswith(("..", "/")) and posixpath.normpath(name) == name
    return is_plain and len(name) <= MAX_NAME and not re.search(_NOT_TAKEN, name)
