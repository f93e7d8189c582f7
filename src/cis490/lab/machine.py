"""One QEMU: its command line, the descriptors it is handed, its death with ours."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from cis490.errors import LabError
from cis490.lab.hosts import Host
from cis490.lab.image import Image
from cis490.lab.lifeline import die_with

PORTS: Final = ("agent", "events", "control")

_BINARY: Final = "qemu-system-x86_64"
_MAC: Final = "52:54:00:10:77:50"
# The kernel otherwise hangs, on a crowded machine, at "8254 timer not connected to IO-APIC".
_KERNEL: Final = "console=ttyS0 no_timer_check quiet panic=-1"
_TAIL: Final = 600  # characters of each log that an error shows


def find_qemu() -> str:
    """The path of QEMU.

    Raises:
        LabError: it is not installed.
    """
    found = shutil.which(_BINARY)
    if found is None:
        raise LabError(f"{_BINARY} is not there: on Debian, apt-get install qemu-system-x86")
    return found


def command(
    host: Host, image: Image, folder: Path, accelerator: str, fds: Mapping[str, int]
) -> list[str]:
    """QEMU's arguments.

    Args:
        host: the machine to emulate.
        image: what it boots.
        folder: where its disk is, and where its console is written to.
        accelerator: "kvm" or "tcg".
        fds: the descriptors of "qmp", of each of `PORTS` and of the "tap" device.
    """
    kernel = f"{_KERNEL} cis490.guest_hz={host.guest_hz:g}"
    arguments = [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", host.machine, "-accel", accelerator, "-cpu", host.cpu),
        *("-smp", str(host.vcpus), "-m", f"{host.memory_mib}M"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", kernel),
        *("-serial", f"file:{_escaped(folder / 'console.log')}"),
        *("-chardev", f"socket,id=qmp,fd={fds['qmp']}", "-mon", "chardev=qmp,mode=control"),
        "-drive",
        f"file={_escaped(folder / 'disk')},if=none,id=disk0,format=raw,cache={host.disk_cache}",
        *("-device", "virtio-blk-pci,drive=disk0"),
        *("-netdev", f"tap,id=lan,fd={fds['tap']}"),
        *("-device", f"virtio-net-pci,netdev=lan,id=net0,mac={_MAC},romfile="),
        *("-device", "virtio-balloon-pci,id=balloon0"),
        *("-device", "virtio-serial-pci"),
    ]
    for name in PORTS:
        arguments += ["-chardev", f"socket,id={name},fd={fds[name]}"]
        arguments += ["-device", f"virtserialport,chardev={name},name=org.cis490.{name}"]
    return arguments


def _escaped(path: Path) -> str:
    """A path as a value among QEMU's options, where a comma ends the value."""
    return str(path).replace(",", ",,")


class Machine:
    """A running QEMU; it dies when this process does.

    Attributes:
        pid: its process.
        qmp: our end of its monitor, not blocking.
        ports: our ends of the guest's serial ports, not blocking, by their names in `PORTS`.
        pidfd: readable once QEMU has ended.
    """

    def __init__(
        self, host: Host, image: Image, folder: Path, accelerator: str, tap: int, qemu: str
    ) -> None:
        """Start it.

        Args:
            host, image, folder, accelerator: as of `command`.
            tap: the tap device's descriptor; it is closed here and lives on in QEMU.
            qemu: the path of the program.
        """
        copy_sparse(image.disk, folder / "disk")
        self._folder = folder
        ours: dict[str, socket.socket] = {}
        theirs: dict[str, socket.socket] = {}
        for name in ("qmp", *PORTS):
            ours[name], theirs[name] = socket.socketpair()
            ours[name].setblocking(False)
        fds = {"tap": tap, **{name: end.fileno() for name, end in theirs.items()}}
        parent = os.getpid()

        def prepare() -> None:
            die_with(parent)
            # Where it cannot use KVM it aborts, and would leave a core of the guest's size.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        with (folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                [qemu, *command(host, image, folder, accelerator, fds)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=list(fds.values()),
                process_group=0,
                preexec_fn=prepare,
            )
        for end in theirs.values():
            end.close()
        os.close(tap)
        self.pid = self._process.pid
        self.qmp = ours.pop("qmp")
        self.ports = ours
        self.pidfd = os.pidfd_open(self.pid)

    def last_words(self) -> str:
        """How QEMU ended, if it has, and the end of what it and the guest's kernel said."""
        code = self._process.poll()
        words = [] if code is None else [f"QEMU ended with {code}"]
        for name in ("qemu.log", "console.log"):
            with suppress(OSError):
                text = (self._folder / name).read_bytes().decode(errors="replace")
                if said := " / ".join(line.strip() for line in text.splitlines() if line.strip()):
                    words.append(f"{name}: {said[-_TAIL:]}")
        return "; ".join(words) or "neither QEMU nor the guest said why"

    def kill(self) -> None:
        """End QEMU at once, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        os.close(self.pidfd)
        for end in (self.qmp, *self.ports.values()):
            end.close()


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file and its holes as holes."""
    with source.open("rb") as old, target.open("wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        place = 0
        while place < size:
            try:
                place = os.lseek(old.fileno(), place, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            end = os.lseek(old.fileno(), place, os.SEEK_HOLE)
            os.lseek(new.fileno(), place, os.SEEK_SET)
            while place < end:
                place += os.sendfile(new.fileno(), old.fileno(), place, end - place)
