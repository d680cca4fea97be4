"""The lines of a text file, also of a compressed one, whatever is in it."""

from __future__ import annotations

import io
import os
from collections import deque
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_resources.sources.protocol import SourceError
from dqe_resources.sources.texts import readable

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Compression by the end of a file's name."""

LONGEST_LINE = 1 << 20
"""Characters of a line; of a longer one no more is read, and its row has a fault."""

CUT = "\udfff"
"""Ends a line that was cut off there. No byte is decoded to it, so no other text can hold it."""

_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Lines:
    """The lines of a text file in UTF-8, with their numbers; bytes that are not UTF-8 become surrogates.

    Attributes:
        number: of the line last given, from 1.
        taken: the lines given since ``mark``.
    """

    def __init__(self, path: Path, newline: str) -> None:
        """Open a file.

        Args:
            path: the file; the end of its name says how it is compressed.
            newline: as for ``open``.
        """
        self.path = path
        self.number = 0
        self.taken: list[str] = []
        self._again: deque[str] = deque()
        try:
            with path.open("rb") as file:
                encoding = _OTHER_ENCODINGS.get(file.read(2))
            stream = pa.input_stream(pa.OSFile(os.fsencode(path)), compression=COMPRESSIONS.get(path.suffix.lower()))
        except OSError as error:
            raise SourceError(f"{readable(str(path))}: cannot be read ({error.strerror or error})") from error
        if encoding is not None:
            raise SourceError(f"{readable(str(path))}: is {encoding}, expected UTF-8: save it as UTF-8")
        self._text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=newline)

    def close(self) -> None:
        """Close the file."""
        self._text.close()

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        self.number += 1
        self.taken.append(line)
        return line

    def mark(self) -> None:
        """Forget the lines taken so far."""
        self.taken.clear()

    def give_back(self) -> str:
        """Give back all lines taken since the mark, but for the first of them, which is returned."""
        first, *rest = self.taken
        self._again.extendleft(reversed(rest))
        self.number -= len(rest)
        return first

    def _read(self) -> str:
        try:
            line = self._text.readline(LONGEST_LINE)
            rest = line
            while len(rest) == LONGEST_LINE and not rest.endswith("\n"):
                rest = self._text.readline(LONGEST_LINE)
        except OSError as error:
            where = f"{readable(str(self.path))}, after line {self.number:,}"
            raise SourceError(f"{where}: damaged or cut off ({error}); get the file again") from error
        if not line:
            raise StopIteration
        return line if rest is line else line + CUT
