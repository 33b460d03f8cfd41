"""The stage of examples: each entry of a recipe is read from its source, encoded, and kept in the cache folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from trex_ds.config import to_dict
from trex_ds.data import store as data_store
from trex_ds.data.cache import Builder, check_writable, content_key
from trex_ds.data.config import DataConfig
from trex_ds.data.store import Store, open_store, tokenizer_fingerprint, write_examples
from trex_ds.distributed import agreed, on_rank_zero
from trex_ds.files import atomic_path
from trex_ds.preparation.stages import Stage, stage
from trex_ds.protocols import Tokenizer
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import source_of

_HARNESS_DATA = "datasets"  # subfolder of a prepared entry, with the datasets that its evaluation needs


def load_examples(
    entries: Sequence[TaskConfig], data: DataConfig, tokenizer: Tokenizer, stages: list[Stage]
) -> tuple[Store, list[Path]]:
    """Examples of all entries, read and encoded where the cache does not have them; a collective.

    Args:
        entries: the recipe's tasks.
        data: how examples become tokens, and where the cache is.
        tokenizer: of the base model.
        stages: to which this stage is added.

    Returns:
        The store of all examples, and the folder of each entry.

    Raises:
        ValueError: a source cannot be read, or its examples cannot be used.
    """
    builder = Builder()
    folder_of_tasks = data.cache_path() / "tasks"
    known = folder_of_tasks.parent / "fingerprints"
    tokens = tokenizer_fingerprint(tokenizer)
    keys = on_rank_zero(lambda: [_key(entry, data, tokens, known) for entry in entries])
    check_writable(folder_of_tasks.parent, needed=not all((folder_of_tasks / key).is_dir() for key in keys))
    with stage("examples", stages) as counts:
        folders = []
        with agreed():
            for entry, key in zip(entries, keys, strict=True):
                counts["made"] += not (folder_of_tasks / key).is_dir()
                folders.append(builder.build(folder_of_tasks / key, partial(_write, entry, data, tokenizer)))
        store = open_store(folders, [entry.source for entry in entries])
        counts["items"] = len(store.train) + len(store.evaluation)
    return store, folders


def harness_data(store: Store, folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by lm_eval task: the one with the datasets of its evaluation.

    Args:
        store: all examples.
        folders: of the entries, as `load_examples` returns them.
    """
    found = {name: folders[entry] / _HARNESS_DATA for name, entry in store.entry.items()}
    return {name: folder for name, folder in found.items() if folder.is_dir()}


def _key(entry: TaskConfig, data: DataConfig, tokens: str, known: Path) -> str:
    """Cache key of an entry's examples; changes with all that they depend on."""
    config = to_dict(replace(entry, weight=1.0))
    remembered = known / content_key([config, data.mirror])
    before = remembered.read_text(encoding="utf-8") if remembered.is_file() else None
    try:
        if missing := data.mirror_problem():
            raise ValueError(missing)  # the hub is no substitute for it
        found = source_of(entry, data.mirror).fingerprint()
    except (OSError, ValueError) as error:
        # A node without a way to the hub or the mirror trusts what was found when the data was prepared.
        if before is None:
            raise ValueError(f"{entry.source}: cannot be reached, and has not been prepared: {error}") from error
        found = before
    else:
        if found != before:
            # A cache that cannot be written to may have all the same what is asked for.
            with suppress(OSError), atomic_path(remembered) as temporary:
                temporary.write_text(found, encoding="utf-8")
    parts = [data_store.FORMAT, config, found, tokens, data.system_prompt, data.max_length]
    parts += [data.learn, data.escape_control_tokens]
    return content_key(parts)


def _write(entry: TaskConfig, data: DataConfig, tokenizer: Tokenizer, folder: Path) -> None:
    source = source_of(entry, data.mirror)
    write_examples(folder, source.examples(), tokenizer, data, entry.source)
    source.keep_for_evaluation(folder / _HARNESS_DATA)
