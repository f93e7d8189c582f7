"""The receiver's side of a store: many writers, and what one that dies leaves behind."""

import hashlib
import os
import subprocess
import sys
import time

import pytest

from cis490.episodes import store as stores
from cis490.episodes.plan import read_store
from cis490.episodes.store import append, read_index
from cis490.errors import StoreError
from tests.conftest import ROOT

N_WRITERS = 8
SETTINGS = {"store_pin": None, "batch": {"episodes": 100, "packed_bytes": 10**9}}

WRITER = """
import os, sys
from cis490.episodes import store
folder, writer, n, synced = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if synced == "no":
    os.fsync = lambda descriptor: None
sys.stdin.readline()  # so that all begin together
for i in range(n):
    store.append(folder, f"host{writer % 3}", f"e{writer}-{i}", b"%d-%d" % (writer, i))
"""

DYING = """
import os, signal, sys
from cis490.episodes import store
store._append_line = lambda index, line: os.kill(os.getpid(), signal.SIGKILL)
store.append(sys.argv[1], "alder", "e2", b"content")
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}"},
        stdin=subprocess.PIPE,
        text=True,
    )


def ids(folder):
    return [record.content["episode_id"] for record in read_index(folder).records]


# A synced record takes some 4 ms on a disk, so 80,000 of them five minutes; the long test leaves
# the syncs out, which only brings the writers closer together.
@pytest.mark.parametrize(("synced", "n"), [("yes", 20), ("no", 250)])
def test_many_writers_leave_no_torn_line_and_readers_see_none(tmp_path, synced, n, request):
    if request.config.getoption("--long") and synced == "no":
        n = 10_000
    writers = [start(WRITER, tmp_path, i, n, synced) for i in range(N_WRITERS)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / stores.INDEX).exists() and (tmp_path / stores.INDEX).stat().st_size:
            assert read_index(tmp_path).torn == []
        time.sleep(0.1)
    assert [writer.returncode for writer in writers] == [0] * N_WRITERS
    index = read_index(tmp_path)
    assert index.torn == []
    assert index.superseded == []
    assert len(index.records) == N_WRITERS * n
    for record in index.records[:: max(1, n // 50)]:
        content = (tmp_path / record.content["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record.content["sha256"]


def test_the_record_says_what_was_received_and_when(tmp_path):
    record = append(tmp_path / "new" / "store", "alder", "e1", b"content", received_wall_ns=7)
    (read,) = read_index(tmp_path / "new" / "store").records
    assert read.content == record
    assert read.complete
    assert record == {
        **{"schema_version": 1, "episode_id": "e1", "host_id": "alder"},
        **{"path": "alder/e1.tar.zst", "size_bytes": 7, "received_wall_ns": 7},
        "sha256": hashlib.sha256(b"content").hexdigest(),
    }
    assert (tmp_path / "new/store/alder/e1.tar.zst").read_bytes() == b"content"


def test_a_writer_killed_between_file_and_record_leaves_an_unindexed_file_and_no_lock(tmp_path):
    append(tmp_path, "alder", "e1", b"content")
    assert start(DYING, tmp_path).wait() == -9
    _, report = read_store({"store": tmp_path, **SETTINGS})
    assert report["unindexed"] == ["alder/e2.tar.zst"]
    assert ids(tmp_path) == ["e1"]
    append(tmp_path, "alder", "e2", b"content")
    _, report = read_store({"store": tmp_path, **SETTINGS})
    assert report["unindexed"] == []
    assert ids(tmp_path) == ["e1", "e2"]


def test_a_line_that_another_left_torn_costs_no_other(tmp_path):
    append(tmp_path, "alder", "e1", b"content")
    with (tmp_path / "index.jsonl").open("a") as index:
        index.write('{"episode_id": "to')
    append(tmp_path, "alder", "e2", b"content")
    append(tmp_path, "alder", "e3", b"content")
    index = read_index(tmp_path)
    assert ids(tmp_path) == ["e1", "e2", "e3"]
    assert [(torn.line, torn.text) for torn in index.torn] == [(2, '{"episode_id": "to')]


def test_the_same_episode_again_supersedes_the_earlier(tmp_path):
    append(tmp_path, "alder", "e1", b"first")
    append(tmp_path, "alder", "e2", b"other")
    last = append(tmp_path, "alder", "e1", b"second")
    index = read_index(tmp_path)
    assert [r.content["sha256"] for r in index.records if r.line == 3] == [last["sha256"]]
    assert index.superseded == [(1, "e1", 3)]
    assert (tmp_path / "alder/e1.tar.zst").read_bytes() == b"second"


@pytest.mark.parametrize(
    ("host_id", "episode_id"),
    [("..", "e1"), ("a/b", "e1"), ("", "e1"), ("alder", "../e1"), ("alder", "e" * 65)],
)
def test_an_unsafe_id_is_refused_before_anything_is_written(tmp_path, host_id, episode_id):
    with pytest.raises(StoreError, match=r"does not match .*: nothing was stored"):
        append(tmp_path / "store", host_id, episode_id, b"content")
    assert not (tmp_path / "store").exists()


def test_a_host_cannot_take_the_place_of_the_index(tmp_path):
    with pytest.raises(StoreError, match="the index's own name"):
        append(tmp_path, "index.jsonl", "e1", b"content")


def test_a_disk_that_refuses_is_told_with_the_file(tmp_path):
    append(tmp_path, "alder", "e1", b"content")
    (tmp_path / "birch").write_text("in the way")
    with pytest.raises(StoreError, match=r"birch/e2\.tar\.zst cannot be stored \(File exists\)"):
        append(tmp_path, "birch", "e2", b"content")
    assert ids(tmp_path) == ["e1"]


def test_a_line_that_the_disk_took_in_part_is_an_error_and_costs_no_other(tmp_path, monkeypatch):
    append(tmp_path, "alder", "e1", b"content")
    write = os.write
    monkeypatch.setattr(os, "write", lambda index, line: write(index, line[:30]))
    with pytest.raises(StoreError, match=r"30 of \d+ bytes of the index's line written"):
        append(tmp_path, "alder", "e2", b"content")
    monkeypatch.undo()
    append(tmp_path, "alder", "e3", b"content")
    assert ids(tmp_path) == ["e1", "e3"]


def test_what_a_killed_writer_left_half_written_is_gone_after_the_next(tmp_path):
    append(tmp_path, "alder", "e1", b"content")
    (tmp_path / "alder/.incoming.partial").write_bytes(b"half")
    append(tmp_path, "alder", "e2", b"content")
    assert sorted(path.name for path in (tmp_path / "alder").iterdir()) == [
        *("e1.tar.zst", "e2.tar.zst")
    ]
