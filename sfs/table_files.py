"""Which files of rows exist, of which kind they are, and how they are opened."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, cast

from sfs.errors import UnreadableFile

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
"""The kinds of files that can be read and written; all but Parquet also with ``.gz`` behind."""


def existing_file(path: str | Path) -> Path:
    """Return the path of a file that exists and is not empty; UnreadableFile otherwise."""
    file = Path(path)
    if file.is_dir():
        raise UnreadableFile(f"{file} is a folder: name a file ({', '.join(SUFFIXES)})")
    if not file.exists():
        raise UnreadableFile(f"there is no file {file}: check the path, which is looked up from {Path.cwd()}")
    if file.stat().st_size == 0:
        raise UnreadableFile(f"{file} is empty (0 bytes): expected a header and rows")
    return file


def kind_of(path: Path) -> str:
    """Return which of `SUFFIXES` a file has, whether packed or not.

    Raises
    ------
    UnreadableFile
        If it has another suffix, or is packed Parquet.

    Examples
    --------
    >>> kind_of(Path("comments.CSV.gz"))
    '.csv'
    """
    packed = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if packed else path).suffix.lower()
    if suffix not in SUFFIXES or (packed and suffix == ".parquet"):
        known = ", ".join(SUFFIXES)
        raise UnreadableFile(
            f"{path}: unknown kind of file {path.suffix!r}; known are {known} (text also with .gz)"
        )
    return suffix


def is_packed(path: Path) -> bool:
    """Return whether a file is packed by gzip, going by its name."""
    return path.suffix.lower() == ".gz"


def opened_text(path: Path, mode: str = "rt", encoding: str = "utf-8") -> IO[str]:
    """Open a text file, packed or not, with line ends as they are."""
    if is_packed(path):
        return cast("IO[str]", gzip.open(path, mode, encoding=encoding, newline=""))
    return cast("IO[str]", path.open(mode.replace("t", ""), encoding=encoding, newline=""))


def opened_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, packed or not."""
    return cast("IO[bytes]", gzip.open(path, "rb") if is_packed(path) else path.open("rb"))
