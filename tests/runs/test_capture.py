import os
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.runs.terminal import on_terminal

BEGIN = """
import os, subprocess, sys
from cis490.runs.capture import Capture
def child(text, stream): subprocess.run(["bash", "-c", f"printf '{text}' >&{stream}"])
capture = Capture()
"""


def run(code: str, tmp_path: Path, *redirect: str) -> str:
    (tmp_path / "code.py").write_text(BEGIN + code)
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = ["bash", "-c", f'"{sys.executable}" code.py {" ".join(redirect)}']
    done, out = on_terminal(command, tmp_path, env)
    assert done == 0, out
    return out.replace("\r\n", "\n")


def test_what_children_write_is_held_and_nothing_of_it_is_lost(tmp_path):
    out = run(
        """
child("one\\n", 2); child("two\\nthr", 1)
first = capture.take()
child("ee\\n", 2); print("four", flush=True); child("fi", 2)
second = capture.take()
os.write(capture.terminal, f"{(first, second)}\\n".encode())
rest = capture.close()
print("rest", [rest])
""",
        tmp_path,
    )
    assert out == "('one\\ntwo\\n', 'three\\nfour\\n')\nrest ['fi']\n"


def test_a_letter_cut_in_two_is_whole_in_the_end(tmp_path):
    out = run(
        """
os.write(2, "é\\n".encode()[:1]); first = capture.take()
os.write(2, "é\\n".encode()[1:]); os.write(2, b"\\xff\\n"); second = capture.take()
capture.close(); print([first, second])
""",
        tmp_path,
    )
    assert out == "['', 'é\\n�\\n']\n"


def test_output_that_goes_to_a_file_goes_on_to_go_there(tmp_path):
    out = run(
        """
child("to the file\\n", 1); child("held\\n", 2)
got = capture.take(); capture.close(); sys.stderr.write(f"{[got]}")
""",
        tmp_path,
        "> file.txt",
    )
    assert out == "['held\\n']"
    assert (tmp_path / "file.txt").read_text() == "to the file\n"


def test_without_a_terminal_there_is_nothing_to_capture(tmp_path):
    (tmp_path / "code.py").write_text(BEGIN)
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = ["bash", "-c", f'"{sys.executable}" code.py 2> err.txt']
    assert on_terminal(command, tmp_path, env)[0] != 0
    assert "stderr is no terminal" in (tmp_path / "err.txt").read_text()
