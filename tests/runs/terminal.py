"""Commands run on a terminal of their own."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def on_terminal(
    command: Sequence[str],
    folder: Path,
    env: dict[str, str],
    *,
    size: tuple[int, int] = (30, 100),
    meanwhile: Callable[[int, str], None] | None = None,
    timeout: float = 90,
) -> tuple[int, str]:
    """Exit code and all that was written to the terminal, control codes included.

    Args:
        meanwhile: called with the process and what was written so far, several times a second.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            os.execvpe(command[0], list(command), {**env, "TERM": "xterm-256color"})
        finally:
            os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    out, deadline = b"", time.monotonic() + timeout
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the last process that had it has ended
                break
            if not part:
                break
            out += part
        if meanwhile is not None:
            meanwhile(pid, out.decode(errors="replace"))
    else:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), out.decode(errors="replace")


def stays(out: str) -> str:
    """What stays on a terminal that is high enough: lines that were taken back are left out."""
    lines: list[str] = [""]
    row = column = 0
    for code, text in re.findall(r"(\x1b\[[0-?]*[ -/]*[@-~]|\r|\n)|([^\x1b\r\n]+)", out):
        if text:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
        elif code == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code == "\r":
            column = 0
        elif code.endswith("A"):
            row -= int(code[2:-1] or 1)
        elif code == "\x1b[2K":
            lines[row] = ""
    return "\n".join(line.rstrip() for line in lines)
