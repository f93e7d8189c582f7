import subprocess
import sys

import pytest

from cis490.episodes.store import read_index
from tests.builders import Store
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts/sample_store.py"


def made(recorded, out):
    command = [sys.executable, SCRIPT, recorded.folder, out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def recorded(tmp_path):
    store = Store(tmp_path / "recorded")
    for i in range(80):
        store.put(("alder", "birch", "dogwood")[i % 3], f"e{i:02}", b"content of episode %02d" % i)
    return store


def test_a_recorded_store_becomes_one_with_a_fleets_faults(recorded, tmp_path):
    out = tmp_path / "out"
    done = made(recorded, out)
    assert done.returncode == 0, done.stderr
    index = read_index(out)
    before, after = (
        {r.content["episode_id"]: r.content for r in read_index(folder).records}
        for folder in (recorded.folder, out)
    )
    assert [name for name in before if before[name] != after[name]] == ["e79"]
    assert before["e79"] == after["e79"] | {"sha256": before["e79"]["sha256"]}
    assert [(t.line, t.n_recovered) for t in index.torn] == [(72, 2)]
    assert index.superseded == [(1, "e04", 6)]
    assert not (out / "dogwood/e77.tar.zst").exists()
    assert (out / "alder/e78.tar.zst").read_bytes() == b"content"
    assert (out / "alder/0123456789abcdef0123.tar.zst").exists()
    whole = sum(len(path.read_bytes()) == 21 for path in out.glob("*/e*.zst"))
    assert whole == 78


def test_the_same_store_in_gives_the_same_store_out(recorded, tmp_path):
    made(recorded, tmp_path / "a")
    made(recorded, tmp_path / "b")
    done = subprocess.run(["diff", "-r", tmp_path / "a", tmp_path / "b"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("fault", ["torn", "few"])
def test_a_store_with_faults_of_its_own_is_refused(tmp_path, fault):
    store = Store(tmp_path / "recorded")
    for i in range(80 if fault == "torn" else 70):
        store.put("alder", f"e{i:02}", b"content")
    if fault == "torn":
        store.append_line('{"episode_id": "e9')
    done = made(store, tmp_path / "out")
    assert done.returncode == 1
    assert "is no whole store of 75 episodes or more" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_not_written_over(recorded, tmp_path):
    (tmp_path / "out").mkdir()
    done = made(recorded, tmp_path / "out")
    assert done.returncode == 1
    assert "out exists; remove it first" in done.stderr
