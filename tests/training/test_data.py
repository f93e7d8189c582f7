import numpy as np
import polars as pl
import pytest

from cis490 import files
from cis490.channels import CHANNELS, PHASES, channel_index
from cis490.errors import ConfigError, FormatError, SchemaMismatch
from cis490.schema import STATISTICS, Schema, feature_names
from cis490.training.data import columns_of, load_split
from cis490.windows.features import summarise
from tests.training.world import SCHEMA

OTHER = Schema(hz=2, max_gap_s=None, length_s=10.0, stride_s=2.5)


def load(world, parts, *, tabular, features=None, tensors=None, **options):
    return load_split(
        world.root / "split.parquet",
        parts,
        schema=options.pop("schema", SCHEMA),
        mode=options.pop("mode", "realistic"),
        tabular=tabular,
        features=world.features if features is None else features,
        tensors=world.tensors if tensors is None else tensors,
        **options,
    )


@pytest.mark.parametrize("mode", ["realistic", "oracle"])
def test_features_and_tensors_tell_of_the_same_windows(world, mode):
    summary = load(world, ["val", "test"], tabular=True, mode=mode)
    cut = load(world, ["val", "test"], tabular=False, mode=mode)
    assert summary.rows.equals(cut.rows)
    assert np.array_equal(summary.y, cut.y)
    assert cut.X.shape == (44, len(channel_index(mode)), 20)
    X = cut.X.to_array()
    log = np.array([CHANNELS[i].log for i in channel_index(mode)])[:, None]
    raw = np.where(log, np.expm1(np.where(log, X, 0)), X)
    told = summarise(np.nan_to_num(raw), ~np.isnan(raw), SCHEMA.hz)
    mean, missing = (slice(STATISTICS.index(name), None, 6) for name in ("mean", "missing"))
    np.testing.assert_array_equal(told[:, missing], summary.X[:, missing])
    np.testing.assert_allclose(told[:, mean], summary.X[:, mean], rtol=1e-4)


def test_only_the_wanted_parts_are_read_sorted_by_part_episode_and_window(world):
    cases = load(world, ["val", "test"], tabular=True)
    assert cases.rows.columns == ["part", "episode_id", "window", "phase"]
    wanted = [("test", "alder-e4"), ("test", "birch-e0"), ("val", "alder-e1"), ("val", "birch-e2")]
    assert cases.rows.select("part", "episode_id").unique(maintain_order=True).rows() == wanted
    assert cases.rows["window"].to_list() == list(range(11)) * 4
    assert [PHASES[i] for i in cases.y] == cases.rows["phase"].to_list()


def test_the_order_of_the_files_does_not_matter(world):
    for tabular in (True, False):
        one = load(world, ["train"], tabular=tabular)
        turned = {"features": world.features[::-1], "tensors": world.tensors[::-1]}
        other = load(world, ["train"], tabular=tabular, **turned)
        assert one.rows.equals(other.rows)
        values = [case.X if tabular else case.X.to_array() for case in (one, other)]
        assert np.array_equal(*values, equal_nan=True)


def test_training_windows_may_move_by_half_a_stride_within_their_episode(world):
    still, moving = (load(world, ["train"], tabular=False, jitter=j).X for j in (False, True))
    assert (still.jitter, moving.jitter) == (0, SCHEMA.stride // 2)
    assert (moving.high - moving.low == 10 * SCHEMA.stride).all()
    assert ((moving.start - moving.low) % SCHEMA.stride == 0).all()
    assert len(moving.series.codes) == len(moving.step_label) == 5 * 128
    assert moving.series.offset.tolist() == [128 * i for i in range(6)]
    assert moving.step_label.dtype == np.int8


def test_missing_values_are_nan_and_zeros_stay_zeros(world):
    cases = load(world, ["train"], tabular=False)
    birch = (cases.rows["episode_id"] == "birch-e1").to_numpy()
    netflow = columns_of("realistic", tabular=False).groups["netflow"]
    X = cases.X.to_array()
    assert np.isnan(X[birch][:, netflow]).all()
    assert not np.isnan(X[~birch][:, netflow]).all(axis=(1, 2)).any()


def test_columns_know_logs_sources_and_what_absence_looks_like():
    columns = columns_of("realistic", tabular=True)
    names = feature_names("realistic")
    assert [names[i] for i in columns.groups["netflow"]] == names[-60:]
    assert columns.groups["guest"] == []
    missing = [name.endswith(".missing") for name in names]
    assert np.array_equal(columns.absent == 1, missing)
    assert np.isnan(columns.absent[~np.array(missing)]).all()
    assert not columns.log[missing].any()
    tensor = columns_of("oracle", tabular=False)
    assert len(tensor.log) == 46
    assert not tensor.log.any()
    with pytest.raises(ConfigError, match="no mode is called dreamy"):
        columns_of("dreamy", tabular=True)


@pytest.mark.parametrize("tabular", [True, False])
def test_files_of_another_schema_are_refused_with_both_hashes(world, tabular):
    with pytest.raises(SchemaMismatch) as caught:
        load(world, ["train"], tabular=tabular, schema=OTHER)
    assert OTHER.sha256 in str(caught.value)
    assert SCHEMA.sha256 in str(caught.value)


def test_features_without_a_hash_are_refused(world):
    frame = pl.read_parquet(world.features[0])
    files.write_parquet(world.features[0], frame)
    with pytest.raises(SchemaMismatch):
        load(world, ["train"], tabular=True)


def test_a_batch_without_its_file_is_named(world):
    with pytest.raises(FormatError, match="no features file for batch birch-00000"):
        load(world, ["train"], tabular=True, features=world.features[:1])
    with pytest.raises(FormatError, match="no tensors file for batch alder-00000"):
        load(world, ["train"], tabular=False, tensors=world.tensors[1:])


def test_a_part_without_episodes_gives_no_windows(world):
    for tabular in (True, False):
        cases = load(world, ["nothing"], tabular=tabular)
        assert len(cases.X) == len(cases.y) == len(cases.rows) == 0
