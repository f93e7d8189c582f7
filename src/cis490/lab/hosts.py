"""The machines that are recorded: what QEMU emulates, and what is observed of it, how often."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cis490.errors import LabError
from cis490.files import StrPath
from cis490.lab import catalog

PROFILES: Final = catalog.profiles()
MACHINES: Final = ("q35", "pc")
DISK_CACHES: Final = ("writeback", "writethrough", "none", "directsync", "unsafe")

_SHIPPED: Final = Path(__file__).with_name("hosts.yaml")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CPU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Host:
    """One configuration of a guest and of its observers.

    Attributes:
        host_id: its name, a folder of the store.
        machine: QEMU's machine type, one of `MACHINES`.
        cpu: QEMU's CPU model.
        memory_mib: of the guest; the kernel panics with 72.
        vcpus: virtual processors.
        disk_cache: QEMU's cache mode of the disk, one of `DISK_CACHES`.
        proc_hz, qmp_hz, guest_hz: rows a second; the defaults are the format's (docs/episodes.md).
        netflow: whether flows are recorded, each 0.5 s; the network is there either way.
        exec: whether process events are recorded.
        profiles: those it runs, in the order of `PROFILES`.
    """

    host_id: str
    machine: str
    cpu: str
    memory_mib: int
    vcpus: int
    disk_cache: str
    proc_hz: float = 10
    qmp_hz: float = 2
    guest_hz: float = 1
    netflow: bool = True
    exec: bool = True
    profiles: tuple[str, ...] = PROFILES


def read_hosts(path: StrPath | None = None) -> list[Host]:
    """Read host configurations, in the order of the file.

    Args:
        path: a YAML mapping of each host's name to the fields of `Host`; None for those shipped.

    Raises:
        LabError: the file cannot be read, or something in it cannot be; it names host and key.
    """
    file = _SHIPPED if path is None else Path(path)
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise LabError(f"cannot read the hosts {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise LabError(f"{file} must hold hosts (name: configuration), see {_SHIPPED}")
    return [_host(name, given, file) for name, given in content.items()]


def _host(name: Any, given: Any, file: Path) -> Host:
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise LabError(f"{file}: {name!r} is no name of a host ({_ID.pattern})")
    if not isinstance(given, dict):
        raise LabError(f"{file}: {name} must hold settings (key: value)")
    fields = {field.name: field for field in dataclasses.fields(Host) if field.name != "host_id"}
    for key in given:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(fields)}"
            raise LabError(f"{file}: {name} has an unknown key {key}{hint}")
    for key, field in fields.items():
        if key not in given and field.default is dataclasses.MISSING:
            raise LabError(f"{file}: {name} lacks {key}")
    for key, value in given.items():
        wanted, fits = _WANTED[key]
        if not fits(value):
            raise LabError(f"{file}: {name}.{key} is {value!r}, not {wanted}")
    own = dict(given)
    if "profiles" in own:
        own["profiles"] = tuple(profile for profile in PROFILES if profile in own["profiles"])
    return Host(name, **own)


def _number(low: float, high: float) -> tuple[str, Callable[[Any], bool]]:
    return (
        f"a number from {low:g} to {high:g}",
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high,
    )


def _integer(low: int, high: int) -> tuple[str, Callable[[Any], bool]]:
    return (
        f"an integer from {low} to {high}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
    )


def _one_of(words: tuple[str, ...]) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(words)}", lambda v: isinstance(v, str) and v in words


_SWITCH: Final = ("true or false", lambda v: isinstance(v, bool))
_WANTED: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "machine": _one_of(MACHINES),
    "cpu": ("a CPU model of QEMU", lambda v: isinstance(v, str) and bool(_CPU.fullmatch(v))),
    "memory_mib": _integer(96, 4096),
    "vcpus": _integer(1, 8),
    "disk_cache": _one_of(DISK_CACHES),
    "proc_hz": _number(1, 50),
    "qmp_hz": _number(0.2, 5),
    "guest_hz": _number(0.2, 5),
    "netflow": _SWITCH,
    "exec": _SWITCH,
    "profiles": (
        f"a list of profiles ({', '.join(PROFILES)})",
        lambda v: isinstance(v, list) and bool(v) and all(p in PROFILES for p in v),
    ),
}
