"""What this process and its children write to the terminal, held so that a live view may show it.

Jobs inherit the terminal and would write into the view. A file takes its place, and not a pipe: a
file never makes a job wait, whatever becomes of its reader.
"""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
from contextlib import suppress

_CHUNK = 64 * 1024


class Capture:
    """Puts a nameless file in the place of stdout and stderr, as far as these are a terminal.

    Attributes:
        terminal: a descriptor of the terminal itself.

    Raises:
        OSError: there is no room for the file, or stderr is no terminal.
    """

    def __init__(self) -> None:
        if not os.isatty(2):
            raise OSError("stderr is no terminal")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        self._read = 0
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.terminal = os.dup(2)
        self._kept: dict[int, int] = {}
        for fd in (1, 2):
            if os.isatty(fd):
                self._kept[fd] = os.dup(fd)
        _flush()
        for fd in self._kept:
            os.dup2(self._file.fileno(), fd)

    def take(self) -> str:
        """What was written since the last time, whole lines only."""
        new = b""
        # Read at a place of its own: writers share the file's position.
        while part := os.pread(self._file.fileno(), _CHUNK, self._read + len(new)):
            new += part
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        return self._text.decode(whole)

    def close(self) -> str:
        """Give stdout and stderr back; what is left, the beginning of a line included."""
        if not self._kept:
            return ""
        _flush()
        for fd, terminal in self._kept.items():
            os.dup2(terminal, fd)
            os.close(terminal)
        self._kept = {}
        rest = self.take()
        rest += self._text.decode(os.pread(self._file.fileno(), _CHUNK, self._read), final=True)
        self._file.close()
        os.close(self.terminal)
        return rest


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
