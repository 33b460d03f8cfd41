"""`file:PATH`: the user's own examples, a JSON-lines or Parquet file or a folder of such files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trex_ds.tasks.base import Example, Split
from trex_ds.tasks.reading import content_digest, data_files, file_rows
from trex_ds.tasks.records import columns_problems
from trex_ds.tasks.registry import register
from trex_ds.tasks.source import Source
from trex_ds.tasks.splitting import Table, split_examples

_PREFIX = "file:"


@register("file")
class FileSource(Source):
    """Examples from files; answers are scored by equality with the reference answer."""

    def problems(self) -> list[str]:
        """Files that do not exist or are of another kind, and columns that mean nothing."""
        found = _path_problems("source", self.location)
        if self.config.evaluation_source is not None:
            if self.config.evaluation_source.startswith(_PREFIX):
                found += _path_problems("evaluation_source", self.config.evaluation_source.removeprefix(_PREFIX))
            else:
                found.append(f"evaluation_source: {self.config.evaluation_source!r} does not begin with {_PREFIX}")
        return found + columns_problems(self.config.columns)

    def no_effect(self) -> list[str]:
        """Options, and the fraction where it has no effect."""
        one_sided = 0 in (self.config.train_examples, self.config.evaluation_examples)
        fraction = ["evaluation_fraction"] if one_sided or self.config.evaluation_source is not None else []
        return ["options", *fraction]

    def fingerprint(self) -> str:
        """Content and names of the files."""
        paths = [path for path in (Path(self.location), self._evaluation_path()) if path is not None]
        return " ".join(content_digest(data_files(p), p if p.is_dir() else p.parent) for p in paths)

    def examples(self) -> Iterator[tuple[Split, Example]]:
        """The examples as `split_examples` gives them.

        Rows that name no task belong to one that bears the name of the source's file (without its
        ending) or folder; those of the evaluation source too.

        Raises:
            ValueError: bad rows, files that cannot be read, or as `split_examples`.
        """
        path, evaluation = Path(self.location), self._evaluation_path()
        name = path.resolve().name if path.is_dir() else path.stem
        evaluated = None if evaluation is None else self._table(evaluation)
        return split_examples(self._table(path), evaluated, name, self.config)

    def _evaluation_path(self) -> Path | None:
        source = self.config.evaluation_source
        return None if source is None else Path(source.removeprefix(_PREFIX))

    def _table(self, path: Path) -> Table:
        files = data_files(path)
        return Table(str(path), lambda: file_rows(files, self.config.columns))


def _path_problems(field: str, location: str) -> list[str]:
    try:
        data_files(Path(location))
    except ValueError as error:
        return [f"{field}: {error}"]
    return []
