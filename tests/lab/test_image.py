"""The guest's image: the same bytes from the same parts, and errors that say what to do."""

import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile

import pytest

from cis490.errors import LabError
from cis490.files import read_json, write_json
from cis490.lab import image, packages
from tests.lab.test_cpio import read

MODULES = image._MODULES
BUSYBOX = b"\x7fELF busybox"
KERNEL = "linux-image-6.1.0-7-cloud-amd64"
makes_disks = pytest.mark.skipif(
    not all(map(shutil.which, ("mke2fs", "debugfs"))), reason="no e2fsprogs"
)


def tar_of(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, body in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return content.getvalue()


class Debian:
    """A machine's apt, dpkg-deb and cc, in a few lines of shell; the .deb of a test is a tar."""

    def __init__(self, folder):
        self.bin, self.pool = folder / "bin", folder / "pool"
        self.bin.mkdir()
        self.pool.mkdir()
        self.tool("apt-cache", f'for last; do :; done; cat "{self.pool}/$last.about" 2>&-', no=100)
        self.tool(
            "apt-get", f'cp "{self.pool}/${{2%%=*}}.deb" "$(cat {self.pool}/${{2%%=*}}.name)"'
        )
        self.tool("dpkg-deb", 'cat "$2"')
        self.tool("cc", 'while [ "$1" != -o ]; do shift; done; echo compiled >"$2"')
        modules = {f"lib/modules/6.1/kernel/drivers/v/{name}.ko": name.encode() for name in MODULES}
        self.package(KERNEL, {"boot/vmlinuz-6.1": b"kernel", **modules})
        self.package("busybox-static", {"bin/busybox": BUSYBOX}, version="1:1.35")
        self.package("linux-image-cloud-amd64", {}, depends=f"{KERNEL} (= 6.1)")

    def tool(self, name, script, no=None):
        path = self.bin / name
        failing = f' || {{ echo "E: No packages found" >&2; exit {no}; }}' if no else ""
        path.write_text(f"#!/bin/sh\necho {name} $@ >>{self.bin}/log\n{script}{failing}\n")
        path.chmod(0o755)

    def package(self, name, files, version="6.1", depends="libc6"):
        content = tar_of(files)
        (self.pool / f"{name}.deb").write_bytes(content)
        (self.pool / f"{name}.name").write_text(f"{name}_{version.replace(':', '%3a')}_amd64.deb")
        (self.pool / f"{name}.about").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: {depends}\n"
            f"Size: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
            "Description: a kernel\n of many lines\n"
        )

    def log(self):
        return (self.bin / "log").read_text().splitlines()


@pytest.fixture
def debian(tmp_path, monkeypatch):
    machine = Debian(tmp_path)
    monkeypatch.setenv("PATH", f"{machine.bin}:{os.environ['PATH']}")
    monkeypatch.delenv("CC", raising=False)
    return machine


@makes_disks
@pytest.mark.usefixtures("debian")
def test_two_builds_give_the_same_bytes(tmp_path):
    first, second = (image.build(tmp_path / name) for name in ("one", "two"))
    for part in ("kernel", "initrd", "disk", "manifest"):
        assert getattr(first, part).read_bytes() == getattr(second, part).read_bytes()
    assert first.digest == second.digest
    assert image.load(tmp_path / "one") == first


@makes_disks
def test_a_second_build_fetches_nothing(debian, tmp_path):
    image.build(tmp_path / "cache")
    said = []
    image.build(tmp_path / "cache", said.append)
    assert sum(line.startswith("apt-get download") for line in debian.log()) == 2
    assert not [line for line in said if "fetching" in line]


@makes_disks
def test_a_newer_package_takes_the_place_of_the_older(debian, tmp_path):
    before = image.build(tmp_path / "cache")
    debian.package("busybox-static", {"bin/busybox": b"newer"}, version="1:1.36")
    after = image.build(tmp_path / "cache")
    assert after.digest != before.digest
    kept = sorted(path.name for path in (tmp_path / "cache/packages").iterdir())
    assert kept == ["busybox-static_1%3a1.36_amd64.deb", f"{KERNEL}_6.1_amd64.deb"]
    assert read_json(after.manifest)["packages"]["busybox-static"]["version"] == "1:1.36"


@makes_disks
@pytest.mark.usefixtures("debian")
def test_what_it_does_is_told_in_words(tmp_path):
    said = []
    built = image.build(tmp_path, said.append)
    assert said[0] == "looking for packages"
    assert said[1].startswith(f"fetching {KERNEL} 6.1 (")
    assert built.digest[:12] in said[-1]


@pytest.mark.usefixtures("debian")
def test_without_apt_it_says_where_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"apt-cache is missing.*Debian"):
        packages.fetch("busybox-static", tmp_path / "packages", print)


@pytest.mark.usefixtures("debian")
def test_an_unknown_package_asks_for_apt_get_update(tmp_path):
    with pytest.raises(LabError, match=r"No packages found.*apt-get update"):
        packages.fetch("nonesuch", tmp_path / "packages", print)


def test_without_a_network_it_says_so_and_what_was_fetched_is_used(debian, tmp_path):
    packages.fetch("busybox-static", tmp_path / "packages", print)
    debian.tool("apt-get", "echo 'E: Failed to fetch: Temporary failure resolving' >&2; exit 100")
    assert packages.fetch("busybox-static", tmp_path / "packages", print).version == "1:1.35"
    with pytest.raises(LabError, match=r"Temporary failure resolving.*network"):
        packages.fetch(KERNEL, tmp_path / "packages", print)


@pytest.mark.usefixtures("debian")
def test_a_damaged_package_is_fetched_again(tmp_path):
    path = packages.fetch("busybox-static", tmp_path / "packages", print).path
    path.write_bytes(b"cut sho")
    again = packages.fetch("busybox-static", tmp_path / "packages", print)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == again.sha256


def test_a_package_that_cannot_be_unpacked_is_told(debian, tmp_path):
    package = packages.fetch("busybox-static", tmp_path / "packages", print)
    debian.tool("dpkg-deb", "echo not a tar; exit 2")
    with pytest.raises(LabError, match="damaged"):
        packages.members(package, "bin/busybox")


def test_modules_are_loaded_in_their_order_and_may_be_compressed():
    kernel = {f"kernel/v/{name}.ko.xz": lzma.compress(name.encode()) for name in MODULES}
    assert image._modules(kernel) == {name: name.encode() for name in MODULES}
    assert list(image._modules(kernel)) == list(MODULES)


def test_a_module_that_is_a_part_of_the_kernel_needs_no_loading():
    kernel = {f"kernel/v/{name}.ko": b"" for name in MODULES if name != "virtio"}
    with pytest.raises(LabError, match="no module virtio"):
        image._modules(kernel)
    kernel["lib/modules/6.1/modules.builtin"] = b"kernel/drivers/virtio/virtio.ko\n"
    assert "virtio" not in image._modules(kernel)


def test_without_a_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(LabError, match=r"no-such-compiler is missing: install gcc and libc6-dev"):
        image._compile(image.GUEST / "events.c")


def test_a_compiler_that_fails_is_quoted(debian):
    debian.tool("cc", "echo 'ld: cannot find -lc' >&2; exit 1")
    with pytest.raises(LabError, match="cannot find -lc"):
        image._compile(image.GUEST / "events.c")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_the_watcher_compiles_without_a_warning(tmp_path):
    flags = "-O2 -Wall -Wextra -Werror".split()
    source = str(image.GUEST / "events.c")
    subprocess.run(["cc", *flags, "-c", "-o", str(tmp_path / "events.o"), source], check=True)


def test_the_initial_files_hold_init_programs_and_modules():
    modules = {"virtio_ring": b"ring", "virtio": b"virtio"}
    found = read(image.initial_files(modules, BUSYBOX, b"watcher"))
    assert found["init"][0] & 0o111
    assert found["bin/busybox"][0] & 0o111
    assert found["lab/events"][:2] == (0o100755, b"watcher")
    assert found["lab/modules/order"][1] == b"virtio_ring\nvirtio\n"
    assert found["lab/modules/virtio.ko"][1] == b"virtio"
    for path in (*image.GUEST.rglob("*.sh"), image.GUEST / "agent.awk"):
        assert found[f"lab/{path.relative_to(image.GUEST)}"][1] == path.read_bytes()
    assert "lab/events.c" not in found
    for name in found:  # the kernel makes no folder by itself
        assert all(str(above) in found for above in image.Path(name).parents if above.name)


@makes_disks
def test_the_disk_holds_the_tree(tmp_path):
    image.make_disk(tmp_path / "disk")
    assert (tmp_path / "disk").stat().st_size == 64 * 2**20
    command = ["debugfs", "-R", f"rdump /files {tmp_path}", str(tmp_path / "disk")]
    subprocess.run(command, check=True, capture_output=True)
    files = sorted(path for path in (tmp_path / "files").rglob("*") if path.is_file())
    assert len(files) == 16 * 12
    assert all(4096 <= path.stat().st_size <= 96 * 1024 for path in files)


@makes_disks
@pytest.mark.usefixtures("debian")
def test_an_image_of_other_programs_is_not_loaded(tmp_path, monkeypatch):
    image.build(tmp_path)
    guest = tmp_path / "guest"
    shutil.copytree(image.GUEST, guest)
    (guest / "jobs/knit.sh").write_text("# imitates: a hobby\n# twin: none\n")
    monkeypatch.setattr(image, "GUEST", guest)
    with pytest.raises(LabError, match=r"other programs.*lab build"):
        image.load(tmp_path)


@makes_disks
@pytest.mark.usefixtures("debian")
def test_a_damaged_image_is_not_loaded(tmp_path):
    built = image.build(tmp_path)
    built.initrd.write_bytes(b"")
    with pytest.raises(LabError, match=r"initrd is damaged.*lab build"):
        image.load(tmp_path)
    write_json(built.manifest, {"sha256": 3})
    with pytest.raises(LabError, match=r"manifest.json is damaged"):
        image.load(tmp_path)


def test_without_an_image_it_says_how_to_get_one(tmp_path):
    with pytest.raises(LabError, match="run `cis490 lab build`"):
        image.load(tmp_path)


def test_the_cache_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert image.default_cache() == tmp_path / "cis490/lab"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, which the standard ignores")
    assert image.default_cache() == image.Path.home() / ".cache/cis490/lab"
