"""What an evaluation reads."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from cis490.evaluation.inputs import silent_sources
from cis490.files import write_parquet


def test_a_source_without_any_value_is_counted_by_host_whether_or_not_its_file_is_there(
    tmp_path: Path,
) -> None:
    parts = pl.DataFrame(
        {
            "episode_id": ["a", "b", "c", "d"],
            "host_id": ["birch", "birch", "elm", "elm"],
            "part": ["train", "test", "test", "excluded"],
        }
    )
    windows = pl.DataFrame(
        {
            "episode_id": ["a", "a", "b", "b", "c", "d"],
            "qmp.rd_ops.missing": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            "qmp.wr_ops.missing": [1.0, 1.0, 1.0, 0.4, 1.0, 1.0],  # b says something once
            "proc.minflt.missing": [0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        }
    )
    write_parquet(tmp_path / "split.parquet", parts)
    write_parquet(tmp_path / "features.parquet", windows)
    assert silent_sources(tmp_path / "split.parquet", [tmp_path / "features.parquet"]) == [
        {"host_id": "birch", "source": "qmp", "n_silent": 1, "n_episodes": 2},
        {"host_id": "elm", "source": "qmp", "n_silent": 1, "n_episodes": 1},
    ]
    assert silent_sources(tmp_path / "split.parquet", []) == []
