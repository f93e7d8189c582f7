import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import collect
from cis490.episodes.validate import examine_file
from cis490.errors import StoreError
from cis490.schema import Schema
from cis490.windows.build import windows_of
from cis490.windows.episode import episode_windows
from tests.builders import members_of, pack
from tests.conftest import ROOT, SAMPLE_STORE

SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)


def test_one_episode_equals_its_batch_to_the_bit():
    paths = sorted((SAMPLE_STORE / "birch").glob("*.zst"))[1:8]
    paths += sorted((SAMPLE_STORE / "dogwood").glob("*.zst"))[:7]
    episodes = [examine_file(path, Limits())[1] for path in paths]
    header, features, shard = windows_of(collect(episodes), SCHEMA)
    for i, path in enumerate(paths):
        own_header, own_features, own = episode_windows(path, SCHEMA)
        rows = (header["episode_id"] == own.episode_id[0]).to_numpy()
        assert own_header.equals(header.filter(pl.Series(rows)))
        np.testing.assert_array_equal(own_features, features[rows])
        steps = slice(shard.offset[i], shard.offset[i + 1])
        np.testing.assert_array_equal(own.codes, shard.codes[steps])
        np.testing.assert_array_equal(own.scale[0], shard.scale[i])
        np.testing.assert_array_equal(own.base[0], shard.base[i])
        np.testing.assert_array_equal(own.phase, shard.phase[steps])


def test_it_needs_no_torch_and_less_than_200_mib():
    code = """
import sys
from pathlib import Path
from cis490.schema import Schema
from cis490.windows.episode import episode_windows
episode_windows(Path(sys.argv[1]), Schema(10, None, 10.0, 5.0))
assert not {"torch", "xgboost", "matplotlib"} & set(sys.modules)
# Not getrusage: its maximum begins with what the forking parent had.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""
    episode = next((SAMPLE_STORE / "alder").glob("16e0*"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(episode)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert int(done.stdout) < 200


def test_an_episode_that_cannot_be_used_says_why(tmp_path):
    path = tmp_path / "e1.tar.zst"
    path.write_bytes(pack(members_of())[:-50])
    with pytest.raises(StoreError, match=r"e1\.tar\.zst is errored: cut_short"):
        episode_windows(path, SCHEMA)
