"""Files of rows: JSON lines and Parquet, read as streams."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trex_ds.tasks.records import FIELDS, Row, check_columns

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
_BATCH_ROWS = 256
_BLOCK_BYTES = 1 << 20


def data_files(path: Path) -> list[Path]:
    """The file, or the data files of the folder and its subfolders in order of their paths.

    README files and names that begin with a dot or an underscore are passed over.

    Raises:
        ValueError: nothing is there, or a file of another kind is; says what is near or what to do.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and not _passed_over(f.relative_to(path)))
        if not files:
            raise ValueError(f"the folder {str(path)!r} holds no {_kinds()} file")
    else:
        raise ValueError(f"no file {str(path)!r} in {Path.cwd()}{_nearest(path)}")
    others = [file for file in files if file.suffix not in (*JSON_LINES, PARQUET)]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ValueError(
            f"{', '.join(map(repr, map(str, others[:3])))}{more}: only {_kinds()} files are read; "
            "convert or rename it, or take it out of the folder"
        )
    return files


def file_rows(files: Sequence[Path], columns: Mapping[str, str]) -> Iterator[Row]:
    """The rows of the files, one file after the other; of Parquet, only the columns that are asked for.

    Raises:
        ValueError: a Parquet file that is damaged or lacks the columns.
    """
    for file in files:
        yield from _parquet_rows(file, columns) if file.suffix == PARQUET else _json_lines(file)


def content_digest(files: Sequence[Path], folder: Path) -> str:
    """Changes with the content of the files and with their paths below `folder`."""
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        name = str(file.relative_to(folder)).encode()
        total.update(f"{len(name)} {file.stat().st_size} ".encode() + name)
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                total.update(block)
    return total.hexdigest()


def _json_lines(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{file}:{number}", line


def _parquet_rows(file: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            check_columns(names, columns, str(file))
            wanted = list(dict.fromkeys(columns.values())) or [name for name in FIELDS if name in names]
            number = 0
            for batch in table.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} is no Parquet file that can be read: {error}") from error


def _passed_over(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts) or path.name.upper().startswith("README")


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {str(path.parent)!r}"
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else ""


def _kinds() -> str:
    return " or ".join([*JSON_LINES, PARQUET])
