"""Build what a guest boots from: Debian's kernel, busybox, our init, and an almost empty disk."""

from __future__ import annotations

import hashlib
import lzma
import os
import random
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cis490.errors import LabError
from cis490.files import StrPath, read_json, replacing, to_compact_json, write_bytes, write_json
from cis490.lab import cpio
from cis490.lab.packages import Package, Say, fetch, members, prune, real_kernel

GUEST: Final = Path(__file__).parent / "guest"

_KERNEL: Final = "linux-image-cloud-amd64"
_BUSYBOX: Final = "busybox-static"
# Each needs those before it; ext4 is a part of the kernel itself.
_MODULES: Final = (
    "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk "
    "failover net_failover virtio_net virtio_console virtio_balloon"
).split()
_WANTED: Final = (
    r"boot/vmlinuz-.*|.*/modules\.builtin|.*/kernel/.*/(" + "|".join(_MODULES) + r")\.ko(\.xz)?"
)
_FOLDERS: Final = "bin data dev lab lab/modules proc run sys".split()

_DISK_MIB: Final = 64
_DISK_UUID: Final = "6c9e2a51-0f0b-4b86-9d1e-3a7f6d3c4901"
_DISK_TIME: Final = 1_700_000_000  # of everything on it
_TREE: Final = (16, 12)  # folders, and files in each, for whoever reads
_TREE_KIB: Final = (4, 96)  # a file's size, uniform
_SEED: Final = 4901

_PARTS: Final = ("vmlinuz", "initrd", "disk.ext4")
_MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class Image:
    """What a guest boots from.

    Attributes:
        kernel, initrd: for QEMU's -kernel and -initrd.
        disk: an ext4 file system of 64 MiB, sparse; each guest writes to a copy.
        manifest: JSON: packages and their versions, sha256 of each part and of all.
        digest: sha256 of all.
    """

    kernel: Path
    initrd: Path
    disk: Path
    manifest: Path
    digest: str


def default_cache() -> Path:
    """Where images and packages are kept: $XDG_CACHE_HOME/cis490/lab, or under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "cis490/lab"


def build(cache: StrPath | None = None, say: Say = lambda _: None) -> Image:
    """Build the image, or build it again: the same packages and sources give the same bytes.

    Args:
        cache: the folder for packages and image; None: `default_cache()`.
        say: takes a line on what is done, for a person.

    Raises:
        LabError: apt, dpkg-deb, a C compiler or mke2fs is missing or fails, or there is no network
            and the packages were not fetched before.
    """
    place = Path(cache) if cache is not None else default_cache()
    _tool("mke2fs", "e2fsprogs")
    _tool("debugfs", "e2fsprogs")
    say("looking for packages")
    packages = [
        fetch(real_kernel(_KERNEL), place / "packages", say),
        fetch(_BUSYBOX, place / "packages", say),
    ]
    prune(place / "packages", packages)
    say(f"unpacking {packages[0].name}")
    kernel = members(packages[0], _WANTED)
    say("compiling the watcher of processes")
    watcher = _compile(GUEST / "events.c")
    say("packing the initial file system")
    initrd = initial_files(_modules(kernel), _busybox(packages[1]), watcher)
    say("making the disk")
    with replacing(place / "image/disk.ext4") as partial:
        make_disk(partial)
    boot = next(content for name, content in kernel.items() if name.startswith("boot/"))
    write_bytes(place / "image/vmlinuz", boot)
    write_bytes(place / "image/initrd", initrd)
    write_json(place / "image" / _MANIFEST, _manifest(place / "image", packages))
    image = load(place)
    say(f"the image {image.digest[:12]} is in {place / 'image'}")
    return image


def load(cache: StrPath | None = None) -> Image:
    """The image that was built.

    Raises:
        LabError: there is none, it is damaged, or it was built from other sources than these.
    """
    folder = (Path(cache) if cache is not None else default_cache()) / "image"
    try:
        manifest = read_json(folder / _MANIFEST)
        parts, sources = manifest["sha256"], manifest["sources"]
        damaged = [name for name in _PARTS if _sha256(folder / name) != parts[name]]
    except FileNotFoundError:
        raise LabError(f"no guest image in {folder}: run `cis490 lab build`") from None
    except (ValueError, KeyError, TypeError):
        damaged = [_MANIFEST]
        sources = None
    if damaged:
        raise LabError(f"{folder / damaged[0]} is damaged: run `cis490 lab build`")
    if sources != _sources():
        raise LabError(
            f"the guest image in {folder} was built from other programs: run `cis490 lab build`"
        )
    kernel, initrd, disk = (folder / name for name in _PARTS)
    return Image(kernel, initrd, disk, folder / _MANIFEST, manifest["digest"])


def initial_files(modules: Mapping[str, bytes], busybox: bytes, watcher: bytes) -> bytes:
    """The guest's initial file system: a cpio archive, not compressed, so that it boots sooner.

    Args:
        modules: the kernel's modules by name, in the order in which they are to be loaded.
        busybox: the static program.
        watcher: `events.c`, compiled.
    """
    entries = [
        *map(cpio.folder, _FOLDERS),
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", busybox, executable=True),
        cpio.file("lab/events", watcher, executable=True),
        cpio.file("lab/modules/order", "".join(f"{name}\n" for name in modules).encode()),
        *(cpio.file(f"lab/modules/{name}.ko", content) for name, content in modules.items()),
        cpio.file("init", (GUEST / "init").read_bytes(), executable=True),
    ]
    for path in _guest_files():
        if path.suffix in (".sh", ".awk"):
            inside = path.relative_to(GUEST)
            entries.append(cpio.file(f"lab/{inside}", path.read_bytes()))
            entries += [cpio.folder(f"lab/{each}") for each in inside.parents if each.name]
    return cpio.archive(dict.fromkeys(entries))


def make_disk(path: Path) -> None:
    """Make the disk: an ext4 file system with a tree of text files in `files`, always the same.

    Raises:
        LabError: mke2fs or debugfs is missing or fails.
    """
    env = os.environ | {"E2FSPROGS_FAKE_TIME": str(_DISK_TIME), "LC_ALL": "C"}
    path.unlink(missing_ok=True)
    options = f"root_owner=0:0,hash_seed={_DISK_UUID},lazy_itable_init=0,lazy_journal_init=0"
    _run(
        [
            *(_tool("mke2fs", "e2fsprogs"), *"-q -F -t ext4 -b 4096 -m 0 -I 256".split()),
            *("-U", _DISK_UUID, "-E", options, str(path), f"{_DISK_MIB}M"),
        ],
        env,
    )
    # `mke2fs -d` would copy the times at which our files were made.
    with tempfile.TemporaryDirectory() as scratch:
        commands = ["mkdir files"]
        for inside, content in _tree():
            if content is None:
                commands.append(f"mkdir {inside}")
            else:
                source = Path(scratch) / str(len(commands))
                source.write_bytes(content)
                source.chmod(0o644)
                commands.append(f"write {source} {inside}")
        script = Path(scratch) / "commands"
        script.write_text("".join(f"{command}\n" for command in commands))
        _run([_tool("debugfs", "e2fsprogs"), "-w", "-f", str(script), str(path)], env)


def _tree() -> Iterator[tuple[str, bytes | None]]:
    """Folders (None) and files of the disk: words, so that they compress as text does."""
    draw = random.Random(_SEED)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(500)]
    folders, files = _TREE
    for i in range(folders):
        yield f"files/{i:02}", None
        for j in range(files):
            size = draw.randint(*_TREE_KIB) * 1024
            text = " ".join(draw.choices(words, k=size // 4))
            yield f"files/{i:02}/{j:02}", text.encode()[:size]


def _modules(kernel: Mapping[str, bytes]) -> dict[str, bytes]:
    """The modules to load, in order; those that are a part of the kernel need no loading."""
    found = {}
    for path, content in kernel.items():
        if match := re.search(r"/(\w+)\.ko(\.xz)?$", path):
            found[match[1]] = lzma.decompress(content) if match[2] else content
    builtin = b"".join(text for name, text in kernel.items() if name.endswith("modules.builtin"))
    own = set(re.findall(r"/([\w-]+)\.ko", builtin.decode()))
    if missing := [name for name in _MODULES if name not in found and name not in own]:
        raise LabError(f"the kernel's package has no module {missing[0]}: it is of another kind")
    return {name: found[name] for name in _MODULES if name in found}


def _busybox(package: Package) -> bytes:
    found = list(members(package, r"(usr/)?bin/busybox").values())
    if not found:
        raise LabError(f"{package.path} holds no bin/busybox: it is of another kind")
    return found[0]


def _compile(source: Path) -> bytes:
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "events"
        command = [_tool(compiler[0], "gcc and libc6-dev"), *compiler[1:]]
        _run([*command, *"-O2 -static -s -o".split(), str(program), str(source)], dict(os.environ))
        return program.read_bytes()


def _manifest(folder: Path, packages: Iterable[Package]) -> dict[str, Any]:
    manifest = {
        "packages": {
            package.name: {"version": package.version, "sha256": package.sha256}
            for package in packages
        },
        "sources": _sources(),
        "sha256": {name: _sha256(folder / name) for name in _PARTS},
    }
    return manifest | {"digest": hashlib.sha256(to_compact_json(manifest).encode()).hexdigest()}


def _sources() -> str:
    """sha256 of all that this package puts into the image."""
    digest = hashlib.sha256()
    for path in _guest_files():
        content = path.read_bytes()
        digest.update(f"{path.relative_to(GUEST)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _guest_files() -> list[Path]:
    return sorted(path for path in GUEST.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(command: list[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says no more"])[-1]
        raise LabError(f"{' '.join(command)} failed: {reason}")


def _tool(name: str, package: str) -> str:
    # Debian keeps the makers of file systems out of the path of those who are not root.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise LabError(f"{name} is missing: install {package} (`apt-get install` as root)")
    return path
