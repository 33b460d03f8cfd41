"""Files of rows: JSON lines and Parquet, read as streams."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trex_ds.tasks.records import FIELDS, Columns, Row, check_columns
from trex_ds.wording import nearest

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
_BATCH_ROWS = 256
_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_PACKED = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ", "zip": b"PK\x03\x04"}


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
        ValueError: a Parquet file that is damaged or lacks the columns, or a file that is not one object a line.
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
        if problem := _not_json_lines(lines.read(_HEAD_BYTES)):
            raise ValueError(f"{file} {problem}")
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{file}:{number}", line


def _not_json_lines(head: bytes) -> str | None:
    """What a file is instead, by its first bytes: one answer for all its lines, and a way out."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "is not in UTF-8, but in UTF-32; convert it, as by iconv -f UTF-32 -t UTF-8"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head[:4:2] == b"\0\0" or head[1:5:2] == b"\0\0":
        return "is not in UTF-8, but it seems in UTF-16; convert it, as by iconv -f UTF-16 -t UTF-8"
    packed = [name for name, magic in _PACKED.items() if head.startswith(magic)]
    if packed:
        return f"is packed with {packed[0]}; unpack it"
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"["):
        return "is a JSON array, where each row should be a line of its own; convert it, as by jq -c '.[]'"
    if re.match(rb'\{\s*\n\s*"', text):
        return "is JSON whose objects go over several lines, where each should be one; convert it, as by jq -c ."
    if b"\n" not in head and re.search(rb"\}\s*\r\s*\{", head):
        return "ends its lines in CR alone; convert it, as by tr '\\r' '\\n'"
    return None


def _parquet_rows(file: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            names = schema.names
            structs = {column.name: column.type for column in schema if pyarrow.types.is_struct(column.type)}
            inside = {inner.name: outer for outer, kind in structs.items() for inner in kind}
            check_columns(Columns(dict.fromkeys(names), inside), columns, str(file))
            wanted = list(dict.fromkeys(columns.values())) or [name for name in FIELDS if name in names]
            number = 0
            for batch in table.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a readable Parquet file: {error}") from error


def _passed_over(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts) or path.name.upper().startswith("README")


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {str(path.parent)!r}"
    near = nearest(path.name, (other.name for other in path.parent.iterdir()))
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else ""


def _kinds() -> str:
    return " or ".join([*JSON_LINES, PARQUET])
