"""What the guest is made of comes from Debian's packages: fetched with apt, never installed."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cis490.errors import LabError

Say = Callable[[str], None]

_NEEDED: Final = "`cis490 lab build` runs on Debian and what is made of it"


@dataclass(frozen=True)
class Package:
    """One fetched package.

    Attributes:
        name, version: as Debian writes them.
        sha256: of the file, as apt's lists have it and as was found.
        path: the file.
    """

    name: str
    version: str
    sha256: str
    path: Path


def fetch(name: str, folder: Path, say: Say) -> Package:
    """Fetch a package into `folder`, unless its file lies there already. Needs no root.

    Raises:
        LabError: apt is missing, does not know the package, or cannot get it.
    """
    about = _about(name)
    version, sha256 = about["Version"], about["SHA256"]
    file_name = f"{name}_{version.replace(':', '%3a')}_{about['Architecture']}.deb"
    path = folder / file_name
    if not path.exists() or _sha256(path) != sha256:
        path.unlink(missing_ok=True)
        say(f"fetching {name} {version} ({int(about['Size']) / 2**20:.1f} MiB)")
        folder.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", f"{name}={version}", folder=folder)
        if not path.exists() or _sha256(path) != sha256:
            raise LabError(f"{path}: apt-get download left no whole file; run lab build again")
    return Package(name, version, sha256, path)


def real_kernel(meta: str) -> str:
    """The name of the kernel's package that a package like linux-image-cloud-amd64 stands for.

    Raises:
        LabError: as `fetch`, or it depends on none.
    """
    found = re.search(r"linux-image-[0-9][^ ,]*", _about(meta).get("Depends", ""))
    if found is None:
        raise LabError(f"the package {meta} names no kernel; look at `apt-cache show {meta}`")
    return found[0]


def members(package: Package, wanted: str) -> dict[str, bytes]:
    """The files of a package whose path fully matches the pattern `wanted`, by path.

    Paths have no leading "./".

    Raises:
        LabError: dpkg-deb is missing, or the file is damaged.
    """
    pattern, found = re.compile(wanted), {}
    command = [_tool("dpkg-deb"), "--fsys-tarfile", str(package.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    content = tar.extractfile(member) if pattern.fullmatch(name) else None
                    if content is not None:
                        found[name] = content.read()
        except tarfile.TarError as error:
            raise LabError(f"{package.path} is damaged ({error}): remove it, build again") from None
    return found


def _about(name: str) -> dict[str, str]:
    """What apt's lists say of the version that would be installed: one-line fields by name."""
    text = _run("apt-cache", "show", "--no-all-versions", name)
    return dict(re.findall(r"^([A-Z][\w-]*): (.*)$", text.split("\n\n")[0], re.MULTILINE))


def _run(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [_tool(command[0]), *command[1:]], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise LabError(f"{' '.join(command)} failed{_reason(done.stderr)}")
    return done.stdout


def _reason(stderr: str) -> str:
    errors = [line.removeprefix("E: ") for line in stderr.splitlines() if line.startswith("E: ")]
    reason = f" ({errors[0]})" if errors else ""
    if "Unable to locate" in reason or "No packages found" in reason:
        return f"{reason}: run `apt-get update` as root first. {_NEEDED}"
    return f"{reason}: is there a network? What was fetched once is kept"


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise LabError(f"{name} is missing: {_NEEDED}, where it is always there")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prune(folder: Path, keep: Sequence[Package]) -> None:
    """Remove packages that newer versions have replaced from a folder of fetched ones."""
    for path in folder.glob("*.deb"):
        if path not in {package.path for package in keep}:
            path.unlink()
