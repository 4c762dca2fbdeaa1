"""A project's own labelled rows: a table, or one of the public sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Source:
    """Rows in a table, or in a public set (``format`` youtube or sms); ``text`` columns stay text."""

    path: Path
    format: str = "table"
    text: tuple[str, ...] = ()
    label: str | None = None

    def read(self) -> pd.DataFrame:
        """Return all rows."""
        if self.format == "table":
            from sfs.tables import read_table

            return read_table(self.path, text=self.text)
        from models.comments import public

        return public.load_youtube(self.path) if self.format == "youtube" else public.load_sms(self.path)

    def batches(self) -> Iterator[pd.DataFrame]:
        """Yield the rows a batch at a time; a table is read with bounded memory."""
        if self.format != "table":
            yield self.read()
            return
        from sfs.tables import read_batches

        yield from read_batches(self.path, text=self.text)

    def visible(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return rows as slicing functions may see them: never with the project's label."""
        return frame if self.label is None else frame.loc[:, [str(c) != self.label for c in frame.columns]]

    def total(self) -> int | None:
        """Return how many rows there are, for a progress bar, or None where that is not cheap."""
        if self.format != "table":
            return None
        from sfs.tables import count_rows

        return count_rows(self.path)
