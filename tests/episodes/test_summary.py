import polars as pl

from cis490.config import resolve
from cis490.episodes import telemetry
from cis490.episodes.ingest import ingest
from cis490.episodes.plan import plan
from cis490.episodes.summary import downgraded_hosts, gather
from cis490.episodes.tarball import Limits
from cis490.files import read_json
from tests.builders import Store, record_of
from tests.conftest import SAMPLE_STORE

COLUMNS = """episode_id host_id profile sample_name background status reasons detail
    sha256 size_bytes started_wall_ns duration_s
    rows_proc rows_qmp rows_guest rows_netflow batch""".split()


def validate(folder, out, train="alder"):
    split = {"train_hosts": [train], "test_hosts": []}
    config = resolve({"store": str(folder), "split": split})
    batches = plan(config, out / "plan")
    for batch in batches:
        ingest(
            read_json(out / f"plan/batches/{batch}.json"),
            store=folder,
            limits=Limits(),
            verdicts=out / f"verdicts/{batch}.parquet",
            folder=out / f"telemetry/{batch}",
        )
    gather(
        [out / f"verdicts/{batch}.parquet" for batch in batches],
        read_json(out / "plan/index.json"),
        parquet=out / "validation.parquet",
        markdown=out / "validation.md",
    )
    return pl.read_parquet(out / "validation.parquet"), (out / "validation.md").read_text()


def test_the_sample_store_gets_the_verdicts_that_its_readme_tells(tmp_path):
    table, page = validate(SAMPLE_STORE, tmp_path)
    assert table.columns == COLUMNS
    counts = dict(table["status"].value_counts().iter_rows())
    assert counts == {"accepted": 162, "degraded": 81, "rejected": 1, "errored": 2}
    assert set(table.filter(status="degraded")["host_id"]) == {"birch", "fir"}
    assert "torn line 72 (byte offset 17912): 2 whole records recovered" in page
    assert "`fir/0123456789abcdef0123.tar.zst` is unindexed" in page
    assert "`a643aab2db4187bdfd9f` of line 1 is superseded by line 6" in page
    assert "birch is a downgraded host: netflow is absent in 41 of its 41" in page


def test_one_bad_episode_costs_no_neighbour_in_its_batch(store: Store, tmp_path):
    store.add("alder", "a")
    store.put("alder", "bad", b"junk")
    store.add("alder", "b", load=3)
    bad_id = record_of("alder", "x", b"") | {"episode_id": "../x"}
    store.append_line(str(bad_id).replace("'", '"') + "\n")
    table, _ = validate(store.folder, tmp_path)
    assert dict(table.select("episode_id", "status").iter_rows()) == {
        "a": "accepted",
        "bad": "errored",
        "b": "accepted",
        "../x": "errored",
    }
    frames = telemetry.read(tmp_path / "telemetry/alder-00000")
    assert frames["episodes"]["episode_id"].to_list() == ["a", "b"]
    assert frames["proc"]["episode"].value_counts(sort=True)["count"].to_list() == [200, 200]
    bad = table.row(1, named=True)
    assert (bad["profile"], bad["duration_s"], bad["rows_proc"]) == (None, None, None)
    assert table.row(3, named=True)["batch"] is None


def test_a_host_is_downgraded_only_over_five_percent(store: Store, tmp_path):
    for i in range(20):
        store.add("alder", f"a{i}", netflow=i > 0, duration_s=5.0)
        store.add("birch", f"b{i}", netflow=i > 1, duration_s=5.0)
    table, _ = validate(store.folder, tmp_path)
    assert downgraded_hosts(table) == [
        {"host_id": "birch", "source": "netflow", "n_lacking": 2, "n_episodes": 20}
    ]


def test_a_fractional_value_in_one_episode_keeps_the_batch_whole(store: Store, tmp_path):
    def fractional(members):
        members["proc.jsonl"] = members["proc.jsonl"].replace(b'"threads": 400', b'"threads": 4.5')

    store.add("alder", "a")
    store.add("alder", "b", mutate=fractional)
    table, _ = validate(store.folder, tmp_path)
    assert set(table["status"]) == {"accepted"}
    threads = telemetry.read(tmp_path / "telemetry/alder-00000")["proc"]["threads"]
    assert threads.dtype == pl.Float64
    assert set(threads.to_list()) == {400.0, 4.5}
