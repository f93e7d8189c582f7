"""QEMU's command line, and what surrounds its process."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from cis490.errors import LabError
from cis490.lab import machine
from cis490.lab.hosts import Host
from cis490.lab.image import Image

IMAGE = Image(Path("/i/vmlinuz"), Path("/i/initrd"), Path("/i/disk"), Path("/i/manifest"), "d")
FDS = {"qmp": 3, "agent": 4, "events": 5, "control": 6, "tap": 7}
HOST = Host("oak", "pc", "qemu64", 192, 2, "writethrough", guest_hz=0.5, netflow=False)


def options(**changes):
    arguments = machine.command(
        HOST,
        **{"image": IMAGE, "folder": Path("/run/a"), "accelerator": "tcg", "fds": FDS, **changes},
    )
    return list(itertools.pairwise(arguments))


def test_the_command_line_says_what_the_host_is():
    given = options()
    for pair in (
        ("-machine", "pc"),
        ("-cpu", "qemu64"),
        ("-smp", "2"),
        ("-m", "192M"),
        ("-accel", "tcg"),
        ("-kernel", "/i/vmlinuz"),
        ("-initrd", "/i/initrd"),
    ):
        assert pair in given
    (drive,) = [value for key, value in given if key == "-drive"]
    assert "file=/run/a/disk," in drive
    assert drive.endswith("cache=writethrough")
    (kernel,) = [value for key, value in given if key == "-append"]
    assert "cis490.guest_hz=0.5" in kernel
    assert "no_timer_check" in kernel


def test_a_host_without_netflow_has_the_same_network():
    assert ("-netdev", "tap,id=lan,fd=7") in options()


def test_all_talk_goes_through_descriptors_and_the_sandbox_is_on():
    given = options()
    chardevs = [value for key, value in given if key == "-chardev"]
    assert chardevs == [
        "socket,id=qmp,fd=3",
        "socket,id=agent,fd=4",
        "socket,id=events,fd=5",
        "socket,id=control,fd=6",
    ]
    assert ("-device", "virtserialport,chardev=events,name=org.cis490.events") in given
    (sandbox,) = [value for key, value in given if key == "-sandbox"]
    assert sandbox == "on,obsolete=deny,spawn=deny,resourcecontrol=deny"


def test_a_comma_in_a_folder_ends_no_option():
    given = options(folder=Path("/run/a,b"))
    assert any("file=/run/a,,b/disk,if=none" in value for _, value in given)
    assert ("-serial", "file:/run/a,,b/console.log") in given


def test_missing_qemu_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LabError, match="apt-get install qemu-system-x86"):
        machine.find_qemu()


def test_holes_are_copied_as_holes(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(16 << 20)
        for place in (0, 5 << 20, (16 << 20) - 4096):
            file.seek(place)
            file.write(b"x" * 4096)
    machine.copy_sparse(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "b").stat().st_blocks <= (tmp_path / "a").stat().st_blocks + 64


def test_an_empty_disk_is_copied_too(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 20)
    machine.copy_sparse(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").stat().st_size == 1 << 20
