"""Names as MLflow takes them, distinct where those of the job are."""

from __future__ import annotations

import hashlib
import posixpath
import re

MAX_NAME = 250
_NOT_TAKEN = r"[^\w.\- :/]"
_DIGITS = 8


def mlflow_name(name: str) -> str:
    """`name`, or where MLflow does not take it: cleaned, cut and marked with digits of its hash.

    The last part of a path stays, and all names of one folder get the same mark: of the task `en?de`,
    `eval/en?de/accuracy` and `eval/en?de/n` become `eval/en_de-HASH/accuracy` and `eval/en_de-HASH/n`.
    """
    if _is_taken(name):
        return name
    folder, slash, last = name.rpartition("/")
    if not folder or not _is_taken(last) or len(last) > MAX_NAME // 2:
        folder, slash, last = name, "", ""
    parts = re.sub(_NOT_TAKEN, "_", folder).split("/")
    cleaned = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
    cleaned = f"_{cleaned}" if cleaned.startswith("..") else cleaned
    mark = "-" + hashlib.sha256(folder.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return cleaned[: MAX_NAME - len(mark + slash + last)] + mark + slash + last


def _is_taken(name: str) -> bool:
    is_plain = name not in ("", ".") and not name.startswith(("..", "/")) and posixpath.normpath(name) == name
    return is_plain and len(name) <= MAX_NAME and not re.search(_NOT_TAKEN, name)
