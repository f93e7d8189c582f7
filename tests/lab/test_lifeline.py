"""Processes that die with who started them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap


def test_a_child_dies_with_its_parent():
    script = textwrap.dedent("""
        import os, sys, time
        from cis490.lab.lifeline import die_with
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            die_with(parent)
            print(os.getpid(), flush=True)
            time.sleep(60)
        time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    fd = os.pidfd_open(child)
    parent.kill()
    parent.wait()
    assert select.select([fd], [], [], 10)[0], "the child lives on"
    os.close(fd)
    parent.stdout.close()
