"""The page says what was measured, and says plainly what does not hold."""

import copy

import pytest

from benchmarks import page
from benchmarks.sizes import jobs

GIB = 1 << 30
PARTS = {
    **{"ingest": 1.2, "windows": 0.6, "plain": 18.0},
    **{"unzip": 0.2, "join": 0.1, "parse_polars": 0.7, "parse_msgspec": 0.5},
    **{"write_telemetry": 0.2, "write_windows": 0.1, "read_telemetry": 0.05},
}
SIZE = {
    **{"hosts": 6, "simulate_s": 2.0, "data_s": 200.0, "data_cpu_s": 300.0, "batches": 302},
    "bytes": {"telemetry": 10_000, "features": 2_000, "tensors": 50_000},
    **{"snakemake_peak": GIB // 4, "idle_peak": GIB // 4, "any_peak": GIB},
    "job_peak": {"ingest": GIB // 8, "windows": GIB // 8},
    "loads": {
        "oracle": {
            **{"seconds": 1.0, "first_seconds": 4.0, "shard_bytes": 2 * 10**9, "n_windows": 7},
            "peak_bytes": 2 * 10**9 + GIB,
        }
    },
    **{"idle_s": 3.0, "floor_s": 1.5, "arrive": 100, "dry_s": 3.5, "arrive_s": 15.0},
    "dry_jobs": {"ingest": 7, "windows": 7, "train": 12},
}
INTERVALS = {
    **{"runs": 39, "replicates": 10_000, "rounds": 5, "rows": 5_658, "pairs": 105, "n_loop": 10},
    **{"peak_bytes": GIB, "ours_ms": 0.1, "loop_ms": 50.0, "cpu_s": 2.0},
}
FIGURES = {
    "machine": {
        **{"name": "Acme 9000", "cores": 2, "memory_gib": 16.0, "system": "Linux 6"},
        **{"python": "3.11", "polars": "2", "numpy": "2", "torch": "2"},
    },
    "commit": "abc1234",
    "problems": [],
    "steps": {
        **{"n": 768, "n_batches": 3, "n_plain": 96, "unzipped_bytes": 250_000},
        "rounds": [PARTS, {name: 2 * ms for name, ms in PARTS.items()}],
    },
    "peers": {
        **{"n_episodes": 3, "n_windows": 33, "n_channels": 46},
        "versions": {"tsfresh": "0.21", "tsfel": "0.2", "pyarrow": "26"},
        "n_statistics": {"tsfresh": 10, "tsfel": 45},
        "least": {"tsfresh": 45.0, "tsfel": 450.0, "arrow": 1.0},
        "median": {"tsfresh": 45.0, "tsfel": 450.0, "arrow": 1.0},
    },
    "training": {
        **{"windows": 880, "batch": 64, "rounds": 5},
        "networks": {
            "cnn": {
                **{"parameters": 60_000, "ours": 1_000.0, "usual": 500.0, "workers": 2},
                **{"ours_input": 20_000.0, "usual_input": 2_000.0},
            },
            "mlp": {
                **{"parameters": 50_000, "ours": 30_000.0, "usual": 5_000.0, "workers": 0},
                **{"ours_input": 50_000.0, "usual_input": 10_000.0},
            },
        },
    },
    "intervals": {
        "sample": {**INTERVALS, "episodes": 44, "windows": 484, "seconds": 2.5},
        "fleet": {**INTERVALS, "episodes": 24_000, "windows": 264_000, "seconds": 50.0},
    },
    "sizes": [
        {**SIZE, "episodes": 1_000, "one_core_s": 300.0},
        {**SIZE, "episodes": 76_660},
    ],
}


def figures(**of_largest):
    changed = copy.deepcopy(FIGURES)
    changed["sizes"][-1] |= of_largest
    return changed


def failing(given):
    return [bar.what for bar in page.bars(given) if not bar.holds]


def test_every_bar_of_the_issue_stands_with_its_value_and_holds():
    found = page.bars(FIGURES)
    assert failing(FIGURES) == []
    assert [bar.measured.split(" (")[0] for bar in found] == [
        *("1.38 ×", "10.0 ×", "6.00 ×", "2.5 s", "50.0 s", "1.00 GiB", "500 ×"),
        *("200 s", "1.00 GiB", "+1.00 GiB", "2.00 GB/s"),
        *("3.0 s, 2.0 × an empty Snakefile", "7 and 7", "15.0 s"),
    ]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data_s": 241.0}, "from an empty results/"),
        ({"any_peak": 2 * GIB + 1}, "peak memory of any job"),
        ({"idle_s": 4.01}, "`snakemake` with nothing to do"),
        ({"dry_jobs": {"ingest": 12, "windows": 13}}, "`snakemake -n` after 100"),
        ({"arrive_s": 20.5}, "and the run of those"),
        ({"loads": {"oracle": {"problem": "killed"}}}, "peak of training's loading, oracle"),
    ],
)
def test_a_bar_that_does_not_hold_is_said_to_fail(change, what):
    given = figures(**change)
    (failed,) = failing(given)
    assert failed.startswith(what)
    (row,) = [line for line in page.render(given, "p.png").splitlines() if f"| {what}" in line]
    assert row.endswith("| **no** |")


def test_bars_of_the_fleet_are_not_judged_on_a_smaller_store():
    given = {**FIGURES, "sizes": FIGURES["sizes"][:1]}
    assert [bar.holds for bar in page.bars(given)] == [True] * 7 + [None] * 7
    assert "(at 1,000) | not measured |" in page.render(given, "p.png")


def test_the_floor_takes_the_best_parser_that_gives_columns():
    given = copy.deepcopy(FIGURES)
    assert page.Cpu(given).floor("together") == pytest.approx(1.3)
    given["peers"]["least"]["arrow"] = 0.6
    assert page.Cpu(given).parser == "arrow"
    assert page.Cpu(given).floor("together") == pytest.approx(1.2)


def test_the_page_names_the_machine_and_begins_with_ratios():
    text = page.render(FIGURES, "p.png")
    assert "Acme 9000, 2 cores, 16 GiB" in text
    assert "abc1234" in text
    assert text.index("holds?") < text.index("ms an episode")
    for row in (line for line in text.splitlines() if line.startswith("|")):
        assert row.endswith("|")


def test_a_size_that_failed_is_said_and_the_others_stand():
    given = {**FIGURES, "sizes": FIGURES["sizes"][:1], "problems": ["76,660 episodes: no space"]}
    text = page.render(given, "p.png")
    assert "**Not measured: 76,660 episodes: no space**" in text
    assert "| 1,000 | 302 |" in text


def test_a_bench_without_peers_says_so():
    text = page.render({**FIGURES, "peers": {"problem": "no pip"}}, "p.png")
    assert "Not measured: no pip." in text


def test_the_picture_is_drawn_the_same_twice(tmp_path):
    for name in ("a.png", "b.png"):
        page.draw(FIGURES, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_jobs_are_counted_from_what_snakemake_says():
    said = "Job stats:\njob      count\n-----  -----\nall   1\ningest   12\ntotal   13\n\nmore 3\n"
    assert jobs(said) == {"ingest": 12}
    assert jobs("Nothing to be done (all requested files are present and up to date).") == {}


def test_the_bar_of_training_is_the_smallest_networks_and_says_when_it_is_missed():
    def bar(of):
        return next(bar for bar in page.bars(of) if "DataLoader" in bar.what)

    held = bar(figures())
    assert "(mlp)" in held.what
    assert (held.measured, held.holds) == ("6.00 × (30,000 over 5,000)", True)
    slower = figures()
    slower["training"]["networks"]["mlp"]["ours"] = 24_000.0
    assert bar(slower).holds is False
    assert "| cnn | 60,000 | 2.00 × | 10.0 × | 1,000 | 500 | 2 | 20,000 | 2,000 |" in page.render(
        figures(), "p.png"
    )


@pytest.mark.parametrize(
    ("case", "change", "what"),
    [
        ("sample", {"seconds": 3.1}, "every figure with its interval, 10,000 replicates, 44 "),
        ("fleet", {"seconds": 60.1}, "every figure with its interval, 10,000 replicates, 24,000 "),
        ("fleet", {"peak_bytes": GIB + 1}, "peak memory of that"),
        ("sample", {"ours_ms": 0.11}, "a replicate of macro F1"),
    ],
)
def test_the_bars_of_intervals_say_when_they_are_missed(case, change, what):
    given = copy.deepcopy(FIGURES)
    given["intervals"][case] |= change
    (failed,) = failing(given)
    assert failed.startswith(what)
    assert "| 24,000 | 264,000 | 500 × |" in page.render(FIGURES, "p.png")
