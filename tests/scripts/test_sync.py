"""Pulling a store from a real sshd on loopback, with keys of its own."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cis490.episodes.store import read_index
from tests.builders import Store, record_of
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts/sync-training-data.sh"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
PATIENT_S = 30


def lacks():
    tools = ("rsync", "ssh", "ssh-keygen", "flock")
    return [t for t in tools if not shutil.which(t)] + ([] if SSHD else ["sshd"])


needs_sshd = pytest.mark.skipif(bool(lacks()), reason=f"not installed: {', '.join(lacks())}")


@pytest.fixture(scope="module")
def ssh_config(tmp_path_factory):
    """An ssh config for the host `there`, where an sshd of the tests listens."""
    folder = tmp_path_factory.mktemp("ssh d")  # with a space, as in all folders here
    for name in ("host", "user"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\n"
        f'HostKey "{folder}/host"\nAuthorizedKeysFile "{folder}/user.pub"\n'
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
    )
    (folder / "config").write_text(
        f"Host there\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f'  IdentityFile "{folder}/user"\n  IdentitiesOnly yes\n'
        f'  UserKnownHostsFile "{folder}/known"\n  StrictHostKeyChecking accept-new\n'
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log
    )
    end = time.monotonic() + PATIENT_S
    probe = ["ssh", "-F", str(folder / "config"), "-o", "BatchMode=yes", "there", "true"]
    while subprocess.run(probe, capture_output=True).returncode != 0:
        if server.poll() is not None or time.monotonic() > end:
            server.kill()
            pytest.skip(f"no sshd can be started: {(folder / 'log').read_text()[-300:]}")
        time.sleep(0.1)
    yield folder / "config"
    server.terminate()
    server.wait()


@dataclass
class Pull:
    """A store there and a folder here."""

    config: Path
    there: Store
    here: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(SCRIPT), str(self.here)],
            env={
                **os.environ,
                **{"SYNC_HOST": "there", "SYNC_FOLDER": str(self.there.folder)},
                "SYNC_SSH_CONFIG": str(self.config),
                **self.environment,
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(**environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ok(self, **environment: str) -> subprocess.CompletedProcess[str]:
        done = self.run(**environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.unkept() == []
        return done

    @property
    def index(self) -> Path:
        return self.here / "index.jsonl"

    def lines(self) -> list[str]:
        return self.index.read_text().splitlines() if self.index.exists() else []

    def unkept(self) -> list[str]:
        """What the index here names and is not here, whole."""
        if not self.lines():
            return []
        paths = [
            (r.content["path"], r.content["size_bytes"]) for r in read_index(self.here).records
        ]
        return [
            path
            for path, size in paths
            if not (self.here / path).is_file() or (self.here / path).stat().st_size != size
        ]


@pytest.fixture
def pull(ssh_config, tmp_path):
    there = Store(tmp_path / "far away" / "my store")
    for host_id in ("alder", "birch"):
        for i in range(3):
            there.put(host_id, f"{host_id}{i}", b"content %d" % i)
    return Pull(ssh_config, there, tmp_path / "over here" / "a store")


@needs_sshd
def test_a_store_comes_as_it_is_with_its_file_times_and_again_costs_nothing(pull):
    old = pull.there.folder / "alder/alder0.tar.zst"
    os.utime(old, ns=(1_500_000_000_123_456_789,) * 2)
    assert "6 new lines of the index of there:" in pull.ok().stdout
    assert pull.index.read_bytes() == pull.there.index.read_bytes()
    for path in pull.there.folder.rglob("*.tar.zst"):
        copy = pull.here / path.relative_to(pull.there.folder)
        assert copy.read_bytes() == path.read_bytes()
        assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns
    before = pull.index.stat()
    assert "0 new lines" in pull.ok().stdout
    assert pull.index.stat().st_mtime_ns == before.st_mtime_ns
    assert pull.index.stat().st_ino == before.st_ino


@needs_sshd
def test_new_episodes_are_appended_and_nothing_here_is_removed(pull):
    pull.ok()
    shutil.rmtree(pull.there.folder / "alder")  # the sender makes room
    pull.there.put("birch", "new", b"new")
    assert "1 new lines" in pull.ok().stdout
    assert len(pull.lines()) == 7
    assert (pull.here / "alder/alder0.tar.zst").exists()


@needs_sshd
def test_an_episode_that_is_sent_again_replaces_its_file(pull):
    pull.ok()
    pull.there.put("alder", "alder1", b"other content")
    pull.ok()
    assert (pull.here / "alder/alder1.tar.zst").read_bytes() == b"other content"
    assert pull.index.read_bytes() == pull.there.index.read_bytes()


@needs_sshd
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_pull_killed_in_the_middle_names_nothing_new_and_goes_on(pull, number):
    pull.ok()
    before = pull.index.read_bytes()
    large = os.urandom(6_000_000)
    for i in range(3):
        pull.there.put("alder", f"large{i}", large)
    process = pull.start(SYNC_BWLIMIT="4M")
    end = time.monotonic() + PATIENT_S
    # The first has come, of the second a part.
    alder = pull.here / "alder"
    while not [*alder.glob("large*")] or not any(
        path.stat().st_size > 1_000_000 for path in alder.glob(".large*")
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.communicate()
    assert pull.index.read_bytes() == before
    assert pull.unkept() == []
    came = {path.name: path.stat().st_ino for path in (pull.here / "alder").glob("large*")}
    assert 0 < len(came) < 3
    if number == signal.SIGTERM:
        end = time.monotonic() + PATIENT_S
        while not [*pull.here.glob(".sync/partial/*")]:  # rsync puts away what it had
            assert time.monotonic() < end
            time.sleep(0.02)
    pull.ok()
    assert pull.index.read_bytes() == pull.there.index.read_bytes()
    for name, inode in came.items():
        assert (pull.here / "alder" / name).stat().st_ino == inode, "it came twice"
    assert not [*pull.here.glob(".sync/partial/*")]


@needs_sshd
def test_a_line_appended_during_the_pull_waits_for_the_next(pull, tmp_path):
    """An rsync that lets an episode arrive there between the index and the files."""
    record = json.dumps(record_of("alder", "meanwhile", b"new"))
    path = pull.there.folder / "alder/meanwhile.tar.zst"
    wrapper = tmp_path / "bin/rsync"
    wrapper.parent.mkdir()
    wrapper.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--files-from*)\n'
        f"  printf new > '{path}'; printf '%s\\n' '{record}' >> '{pull.there.index}' ;;\n"
        f'esac\nexec {shutil.which("rsync")} "$@"\n'
    )
    wrapper.chmod(0o755)
    pull.ok(PATH=f"{wrapper.parent}:{os.environ['PATH']}")
    assert len(pull.lines()) == 6
    assert not (pull.here / "alder/meanwhile.tar.zst").exists()
    pull.ok()
    assert pull.index.read_bytes() == pull.there.index.read_bytes()


@needs_sshd
def test_a_line_is_left_out_until_its_file_comes_and_the_rest_is_not_held_up(pull):
    lost = pull.there.folder / "birch/birch1.tar.zst"
    content = lost.read_bytes()
    lost.unlink()
    done = pull.ok()
    assert "5 new lines" in done.stdout
    assert "left out until their file comes: 1, such as birch/birch1.tar.zst" in done.stderr
    assert "birch1" not in pull.index.read_text()
    pull.there.put("birch", "new", b"new")
    assert "1 new lines" in pull.ok().stdout
    lost.write_bytes(content)
    assert "1 new lines" in pull.ok().stdout
    # Appended, for what is in an index stays where it is.
    assert '"birch1"' in pull.lines()[-1]
    assert sorted(pull.lines()) == sorted(pull.there.index.read_text().splitlines())


@needs_sshd
def test_torn_lines_come_with_the_files_that_they_name_and_half_a_line_waits(pull):
    folder = pull.there.folder
    records = []
    for name in ("t0", "t1", "t2", "half"):
        (folder / f"alder/{name}.tar.zst").write_bytes(b"torn")
        records.append(json.dumps(record_of("alder", name, b"torn")))
    pull.there.append_line(records[0] + records[1] + "\n" + records[2][:50] + "\n")
    pull.there.append_line("\x00\x00 not JSON \\ at all\n\n")
    pull.there.append_line(records[3][:-2])
    pull.ok()
    assert {r.content["episode_id"] for r in read_index(pull.here).records} >= {"t0", "t1"}
    assert "half" not in pull.index.read_text()
    before = pull.index.read_bytes()
    assert "0 new lines" in pull.ok().stdout
    assert pull.index.read_bytes() == before
    pull.there.append_line(records[3][-2:] + "\n")
    assert "1 new lines" in pull.ok().stdout
    assert {r.content["episode_id"] for r in read_index(pull.here).records} >= {"half"}


@needs_sshd
def test_paths_that_leave_the_store_are_not_followed(pull, tmp_path):
    (tmp_path / "far away/secret").write_text("secret")
    for i, path in enumerate(("../secret", "/etc/hostname", "alder/../../secret")):
        pull.there.append_line(json.dumps(record_of("alder", f"bad{i}", b"", path=path)) + "\n")
    done = pull.run()
    assert done.returncode == 0, done.stderr
    assert not [p for p in pull.here.parent.rglob("*") if p.name in ("secret", "hostname")]
    assert len(pull.lines()) == 9  # the workflow reports such records


@needs_sshd
def test_names_of_files_may_be_odd_and_a_host_may_lie_on_another_disk_there(pull, tmp_path):
    disk = tmp_path / "disk there"
    (pull.there.folder / "alder").rename(disk)
    (pull.there.folder / "alder").symlink_to(disk)
    odd = "birch/an 'odd' $name* \u00e9.tar.zst"
    (pull.there.folder / odd).write_bytes(b"odd")
    record = json.dumps(record_of("birch", "odd", b"odd", path=odd), ensure_ascii=False)
    pull.there.append_line(record.replace("birch/", "birch\\/") + "\n")
    pull.ok()
    assert (pull.here / odd).read_bytes() == b"odd"
    assert not (pull.here / "alder").is_symlink()
    assert (pull.here / "alder/alder0.tar.zst").read_bytes() == b"content 0"


@needs_sshd
def test_a_host_that_is_a_link_here_is_never_replaced_and_its_lines_wait_if_rsync_refuses_it(
    pull, tmp_path
):
    (tmp_path / "disk here").mkdir()
    pull.here.mkdir(parents=True)
    (pull.here / "birch").symlink_to(tmp_path / "disk here")
    done = pull.ok()  # newer releases of rsync do not follow it, older ones do
    assert (pull.here / "birch").is_symlink()
    came = len([*(tmp_path / "disk here").glob("*.tar.zst")])
    assert f"{3 + came} new lines" in done.stdout
    assert (came == 3) != ("left out until their file comes: 3" in done.stderr)


@needs_sshd
def test_the_limit_of_the_bandwidth_is_passed_on_with_the_user(pull, tmp_path):
    wrapper = tmp_path / "bin/rsync"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{tmp_path}/said"\nexec {shutil.which("rsync")} "$@"\n'
    )
    wrapper.chmod(0o755)
    path = {"PATH": f"{wrapper.parent}:{os.environ['PATH']}"}
    pull.ok(SYNC_BWLIMIT="1.5M", SYNC_USER=getpass.getuser(), **path)
    said = (tmp_path / "said").read_text().splitlines()
    assert said.count("--bwlimit=1.5M") == 2
    assert f"{getpass.getuser()}@there:{pull.there.folder}/" in said
    (tmp_path / "said").unlink()
    pull.ok(**path)
    assert "bwlimit" not in (tmp_path / "said").read_text()


@needs_sshd
def test_two_pulls_at_once_are_refused(pull):
    (pull.here / ".sync").mkdir(parents=True)
    held = subprocess.Popen(
        ["flock", str(pull.here / ".sync/lock"), "sleep", "600"], start_new_session=True
    )
    try:
        end = time.monotonic() + PATIENT_S
        while (done := pull.run()).returncode == 0:
            assert time.monotonic() < end
        assert "error: another pull into" in done.stderr
    finally:
        os.killpg(held.pid, signal.SIGKILL)
        held.wait()


@needs_sshd
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SYNC_FOLDER": "/no/such"}, "cannot get there:/no/such/index.jsonl"),
        ({"SYNC_HOST": "nowhere.invalid"}, "cannot get nowhere.invalid:"),
        ({"SYNC_USER": "nobody_here"}, "cannot get nobody_here@there:"),
    ],
)
def test_what_cannot_be_reached_is_said_and_leaves_the_index(pull, environment, message):
    pull.ok()
    before = pull.index.read_bytes()
    done = pull.run(**environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert pull.index.read_bytes() == before


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SYNC_HOST": ""}, "SYNC_HOST is not set"),
        ({"SYNC_FOLDER": ""}, "SYNC_FOLDER is not set"),
        ({"SYNC_HOST": "-oProxyCommand=touch x"}, "is no name of a host"),
        ({"SYNC_HOST": "a b"}, "is no name of a host"),
        ({"SYNC_USER": "-l root"}, "is no name of a user"),
        ({"SYNC_BWLIMIT": "fast"}, "SYNC_BWLIMIT: 'fast' is no rate"),
        ({"SYNC_BWLIMIT": "10MB; true"}, "is no rate"),
        ({"SYNC_FOLDER": ":module"}, "is no folder"),
        ({"SYNC_SSH_CONFIG": "/no/such"}, "cannot read '/no/such'"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_made(tmp_path, environment, message):
    done = subprocess.run(
        [str(SCRIPT), str(tmp_path / "store")],
        env={**os.environ, "SYNC_HOST": "there", "SYNC_FOLDER": "/x", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "store").exists()


def test_help_is_given_and_a_missing_store_is_no_guess(tmp_path):
    done = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SYNC_BWLIMIT" in done.stdout
    for arguments in ([], [""], [str(tmp_path), "more"]):
        done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert "usage:" in done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="not installed: shellcheck")
def test_shellcheck_finds_nothing():
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
