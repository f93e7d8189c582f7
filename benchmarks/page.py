"""docs/benchmarks.md and its picture, from the figures of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

FLEET: Final = 76_660
GIB: Final = 1 << 30
MIB: Final = 1 << 20
BARS: Final = {"run": 240.0, "idle": 4.0, "arrive": 20.0}
# The floor of each step, and of both: who does both at once need not read telemetry again.
_FLOORS: Final = {
    "ingest": ("unzip", "join", "parse", "write_telemetry"),
    "windows": ("read_telemetry", "write_windows"),
    "together": ("unzip", "join", "parse", "write_telemetry", "write_windows"),
}

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A row of the table of bars; `holds` is None where it was not measured at full size."""

    what: str
    bar: str
    measured: str
    holds: bool | None

    def row(self) -> str:
        verdict = {True: "yes", False: "**no**", None: "not measured"}[self.holds]
        return f"| {self.what} | {self.bar} | {self.measured} | {verdict} |"


class Cpu:
    """CPU ms an episode of each part, least and median of the rounds."""

    def __init__(self, figures: Figures) -> None:
        rounds: Sequence[Mapping[str, float]] = figures["steps"]["rounds"]
        together = [of["ingest"] + of["windows"] for of in rounds]
        self.least = {name: min(of[name] for of in rounds) for name in rounds[0]}
        self.median = {name: median(of[name] for of in rounds) for name in rounds[0]}
        self.least["together"], self.median["together"] = min(together), median(together)
        # The best of those that give columns; rows of objects are not yet what is needed.
        self.parser = "polars"
        arrow = figures["peers"].get("least", {}).get("arrow")
        for name, of in (("least", self.least), ("median", self.median)):
            of["parse"] = of["parse_polars"]
            if arrow is not None:
                of["parse_arrow"] = figures["peers"][name]["arrow"]
                if arrow < self.least["parse_polars"]:
                    self.parser, of["parse"] = "arrow", of["parse_arrow"]

    def floor(self, step: str, of: str = "least") -> float:
        """Ms an episode that nobody can leave out."""
        return float(sum(getattr(self, of)[name] for name in _FLOORS[step]))

    def ratio(self, step: str, of: str = "least") -> float:
        """Ours over the floor."""
        return float(getattr(self, of)[step]) / self.floor(step, of)


def bars(figures: Figures) -> list[Bar]:
    """The table of bars, each with its value and whether it holds."""
    cpu, largest = Cpu(figures), figures["sizes"][-1]
    full = largest["episodes"] == FLEET
    at = "" if full else f" (at {largest['episodes']:,})"
    ratio, faster = cpu.ratio("together"), cpu.least["plain"] / cpu.least["together"]
    reach = "" if ratio > 1.4 else ", and what we reached for"
    found = [
        Bar(
            "CPU of ingest + windows over the floor",
            "≤ 2 × (reach for 1.4)",
            f"{ratio:.2f} × ({cpu.least['together']:.2f} over {cpu.floor('together'):.2f} ms)"
            + reach,
            ratio <= 2,
        ),
        Bar(
            "against json.loads and loops with the same output",
            "≥ 10 × faster",
            f"{faster:.1f} × ({cpu.least['plain']:.1f} over {cpu.least['together']:.2f} ms)",
            faster >= 10,
        ),
    ]

    networks = figures["training"]["networks"]
    quickest = max(networks, key=lambda name: networks[name]["ours"])
    of = networks[quickest]
    found.append(
        Bar(
            f"windows a second in training the quickest network ({quickest}), over Dataset and "
            "DataLoader",
            "≥ 5 ×",
            f"{of['ours'] / of['usual']:.2f} × ({of['ours']:,.0f} over {of['usual']:,.0f})",
            of["ours"] >= 5 * of["usual"],
        )
    )

    found += _interval_bars(figures["intervals"])

    def of_fleet(what: str, bar: str, measured: str, holds: bool) -> None:
        found.append(Bar(what, bar, measured + at, holds if full else None))

    wall, peak = largest["data_s"], largest["any_peak"]
    of_fleet("from an empty results/ to all features and tensors", "≤ 4 min", _s(wall), wall <= 240)
    what = "peak memory of any job but training (of those run here, see Memory)"
    of_fleet(what, "≤ 2 GiB", _gib(peak), peak <= 2 * GIB)
    for mode, load in largest["loads"].items():
        what = f"peak of training's loading, {mode}, over its shard bytes"
        if "problem" in load:
            of_fleet(what, "≤ 2 GiB", f"failed: {load['problem']}", holds=False)
            continue
        over, rate = load["peak_bytes"] - load["shard_bytes"], _rate(load)
        of_fleet(what, "≤ 2 GiB", f"{over / GIB:+.2f} GiB", over <= 2 * GIB)
        what = f"shard bytes into memory, {mode}"
        of_fleet(what, "≥ 1 GB/s", f"{rate:.2f} GB/s", rate >= 1)
    idle, arrive = largest["idle_s"], largest["arrive_s"]
    floor = f"{_s(idle)}, {idle / largest['floor_s']:.1f} × an empty Snakefile"
    of_fleet("`snakemake` with nothing to do", "≤ 4 s", floor, idle <= BARS["idle"])
    jobs, hosts, n = largest["dry_jobs"], largest["hosts"], largest["arrive"]
    ingests, windows = jobs.get("ingest", 0), jobs.get("windows", 0)
    of_fleet(
        f"`snakemake -n` after {n} new episodes of {hosts} hosts",
        f"ingest and windows ≤ 2 × {hosts} each",
        f"{ingests} and {windows}",
        max(ingests, windows) <= 2 * hosts,
    )
    of_fleet("and the run of those", "≤ 20 s", _s(arrive), arrive <= BARS["arrive"])
    return found


def _interval_bars(intervals: Figures) -> list[Bar]:
    sample, fleet = intervals["sample"], intervals["fleet"]
    what = "every figure with its interval, {:,} replicates, {} test episodes"
    ratio = min(of["loop_ms"] / of["ours_ms"] for of in intervals.values())
    seconds = [
        Bar(what.format(of["replicates"], f"{of['episodes']:,}"), f"≤ {bar} s", _s(s), s <= bar)
        for of, bar in ((sample, 3), (fleet, 60))
        for s in (of["seconds"],)
    ]
    peak = fleet["peak_bytes"]
    return [
        *seconds,
        Bar("peak memory of that", "≤ 1 GiB", _gib(peak), peak <= GIB),
        Bar(
            "a replicate of macro F1, over a loop over scikit-learn's f1_score",
            "≥ 500 ×",
            f"{ratio:,.0f} ×",
            ratio >= 500,
        ),
    ]


def render(figures: Figures, picture: str) -> str:
    """The page as Markdown; `picture` is the picture's name beside it."""
    machine = figures["machine"]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"One run of `make bench` on {machine['name']}, {machine['cores']} cores, "
            f"{machine['memory_gib']:.0f} GiB, {machine['system']}; Python {machine['python']}, "
            f"polars {machine['polars']}, numpy {machine['numpy']}, "
            f"torch {machine['torch']}; commit {figures['commit']}. "
            "Clones of the sample store's episodes (`cis490 simulate`). Ratios first: a time is "
            "this machine's alone. This page is written by the bench; do not edit it.",
            "",
            "## The bars",
            f"On two cores, a store of {FLEET:,} episodes unless said.",
            "",
            "| what | bar | measured | holds? |",
            "|---|---|---|---|",
            *(bar.row() for bar in bars(figures)),
            "",
            *(f"**Not measured: {problem}**\n" for problem in figures["problems"]),
            *_steps(figures),
            *_peers(figures),
            *_training(figures),
            *_intervals(figures),
            *_sizes(figures, picture),
            *_memory(figures),
        ]
    )


def _steps(figures: Figures) -> list[str]:
    cpu, steps = Cpu(figures), figures["steps"]
    batch = steps["n"] // steps["n_batches"]
    rows = [
        f"| {title} | {cpu.ratio(step):.2f} × | {cpu.ratio(step, 'median'):.2f} × | "
        f"{cpu.least[step]:.2f} | {cpu.median[step]:.2f} | {cpu.floor(step):.2f} | "
        f"{cpu.floor(step, 'median'):.2f} |"
        for step, title in (
            ("ingest", "ingest"),
            ("windows", "windows"),
            ("together", "**ingest + windows**"),
        )
    ]
    parts = [
        ("unzip", "read, sha256, unzip"),
        ("join", "find the members, join them by table"),
        ("parse", f"parse ({cpu.parser})"),
        ("write_telemetry", "compress and write telemetry and verdicts"),
        ("write_windows", "compress and write features and tensors"),
        ("read_telemetry", "read telemetry (floor of windows alone)"),
    ]
    others = [
        ("parse_polars", "polars `read_ndjson` with a schema"),
        ("parse_arrow", "Arrow `read_json` with a schema"),
        ("parse_msgspec", "msgspec, typed lines to rows of objects: no columns yet"),
    ]
    harsh = cpu.floor("together") - cpu.least["parse"] + cpu.least["parse_msgspec"]
    plain = cpu.least["plain"] / cpu.least["together"]
    return [
        "## CPU an episode beside the floor",
        f"One thread, user and system time, n = {steps['n']} faultless clones of three hosts (one "
        f"records no netflow) in {steps['n_batches']} batches of {batch}, "
        f"{steps['unzipped_bytes'] / 1000:.0f} KB each unzipped; "
        f"{len(steps['rounds'])} rounds, all parts in turn in each. ms an episode.",
        "",
        "| step | ratio, least | ratio, median | ours, least | median | floor, least | median |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "The floor does what nobody can leave out, with ready-made parts: members of a batch "
        "joined into one text a table, and the very frames and arrays of our outputs, in memory "
        "beforehand, written by the same functions to the same bytes. It validates nothing. "
        "Writes are synced to disk; waiting for the disk is not CPU. Ingest + windows is held "
        "against a floor that does not read telemetry again.",
        "",
        "| part of the floor | ms, least | median |",
        "|---|---|---|",
        *(f"| {title} | {cpu.least[n]:.3f} | {cpu.median[n]:.3f} |" for n, title in parts),
        "",
        "| parser | ms, least | median |",
        "|---|---|---|",
        *(
            f"| {title} | {cpu.least[n]:.3f} | {cpu.median[n]:.3f} |"
            for n, title in others
            if n in cpu.least
        ),
        "",
        f"With msgspec's rows in the place of columns the floor would be {harsh:.2f} ms, and ours "
        f"{cpu.least['together'] / harsh:.2f} × that.",
        "",
        f"**{plain:.1f} × faster than the plain reference**: json.loads a line and Python loops "
        f"take {cpu.least['plain']:.1f} ms (median {cpu.median['plain']:.1f}) for the same grid, "
        f"masks, features and phases (n = {steps['n_plain']}; a test holds them equal). It "
        "writes features and tensors with our encoder and writers, as the bar asks for the same "
        "output, but judges nothing, keeps no telemetry and takes a short cut on constant windows. "
        f"It stands at {cpu.least['plain'] / cpu.floor('together'):.1f} × the floor: to "
        f"be 10 × faster is to be within {cpu.least['plain'] / cpu.floor('together') / 10:.2f} × "
        "of it.",
        "",
    ]


def _peers(figures: Figures) -> list[str]:
    peers, cpu = figures["peers"], Cpu(figures)
    head = ["## Beside tsfresh and tsfel"]
    if "problem" in peers:
        return [*head, f"Not measured: {peers['problem']}.", ""]
    ours = cpu.least["windows"] - cpu.floor("windows")
    titles = {
        "tsfresh": f"tsfresh {peers['versions']['tsfresh']}, MinimalFCParameters",
        "tsfel": f"tsfel {peers['versions']['tsfel']}, statistical and temporal, its defaults",
    }
    return [
        *head,
        f"CPU on one thread, in one process: {peers['n_windows']} windows of "
        f"{peers['n_episodes']} episodes, all {peers['n_channels']} channels on the grid (0 where "
        "missing, for the peers refuse holes), given to tsfresh in the quickest of its three forms "
        "and to tsfel as one array an episode, made outside the timing. Ours is all of "
        "windows but reading and writing: alignment, rates, "
        "grid and statistics, where the peers do the statistics alone; but they compute more of "
        "them.",
        "",
        "| what | times ours | ms an episode | statistics a channel |",
        "|---|---|---|---|",
        f"| ours: windows without its reads and writes | 1 × | {ours:.2f} | 6 |",
        *(
            f"| {title} | {peers['least'][name] / ours:.0f} × | {peers['least'][name]:.1f} | "
            f"{peers['n_statistics'][name]:.0f} |"
            for name, title in titles.items()
        ),
        "",
    ]


def _training(figures: Figures) -> list[str]:
    training = figures["training"]
    rows = [
        f"| {name} | {of['parameters']:,} | {of['ours'] / of['usual']:.2f} × | "
        f"{of['ours_input'] / of['usual_input']:.1f} × | {of['ours']:,.0f} | {of['usual']:,.0f} | "
        f"{of['workers']} | {of['ours_input']:,.0f} | {of['usual_input']:,.0f} |"
        for name, of in training["networks"].items()
    ]
    return [
        "## Training beside Dataset and DataLoader",
        f"Windows a second on one thread of the CPU, n = {training['windows']} windows in batches "
        f"of {training['batch']}, median of {training['rounds']} epochs, all in turn. The usual "
        "loop has the same network and batch; an item of its Dataset is cut, moved and masked "
        "when it is asked for. It gets the better of no worker and of two that stay, which is a "
        "second and a third core for it. Input alone makes the batches and trains nothing.",
        "",
        "| network | parameters | training | input alone | ours, windows/s | usual | its workers | "
        "input, ours | usual |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "On a CPU most of a step is the network itself, which is the same for both. On a card it "
        "is 11 to 19 times the usual loop: [card.md](card.md).",
        "",
    ]


def _intervals(figures: Figures) -> list[str]:
    intervals = figures["intervals"]
    rows = [
        f"| {of['episodes']:,} | {of['windows']:,} | {of['loop_ms'] / of['ours_ms']:,.0f} × | "
        f"{of['ours_ms']:.3f} | {of['loop_ms']:,.0f} | {of['rows']:,} | {of['pairs']} | "
        f"{_s(of['seconds'])} | {_s(of['cpu_s'])} | "
        f"{of['seconds'] / of['replicates'] * 1e3:.2f} | "
        f"{of['peak_bytes'] / MIB:.0f} |"
        for of in intervals.values()
    ]
    some = intervals["sample"]
    return [
        "## Intervals beside a loop over f1_score",
        f"{some['runs']} runs (twelve detectors with three seeds, three baselines) on made-up "
        f"predictions, {some['replicates']:,} replicates of the clustered bootstrap. A replicate "
        "of macro F1 of all runs, over the usual loop: draw episodes, gather their windows, ask "
        "scikit-learn (which gives the same figure). Everything: all metrics, breakdowns, "
        "intervals and pairs of test and val, from predictions in memory to both tables. One "
        "thread, as in the workflow.",
        "",
        "| test episodes | windows | macro F1, a replicate | ours, ms | the loop, ms | "
        "everything: figures | pairs | took | of CPU | ms a replicate | peak, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _sizes(figures: Figures, picture: str) -> list[str]:
    sizes = figures["sizes"]
    alone = [size for size in sizes if "one_core_s" in size]
    return [
        "## Cost against store size",
        f"![Wall time against store size]({picture})",
        "",
        "Through Snakemake on two cores, its own start and bookkeeping included; "
        f"{sizes[-1]['hosts']} hosts, 2% degraded, 1% rejected, 1% errored.",
        "",
        "| episodes | batches | from nothing | episodes/s | CPU ms an episode, all in | "
        "nothing to do | an empty Snakefile | `-n` after +100 | run of +100 | jobs of it |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {s['episodes']:,} | {s['batches']} | {_s(s['data_s'])} | "
            f"{s['episodes'] / s['data_s']:.0f} | {s['data_cpu_s'] / s['episodes'] * 1e3:.2f} | "
            f"{_s(s['idle_s'])} | {_s(s['floor_s'])} | "
            f"{_s(s['dry_s'])} | {_s(s['arrive_s'])} | {_jobs(s)} |"
            for s in sizes
        ),
        "",
        *(
            f"On one core {s['episodes']:,} episodes take {_s(s['one_core_s'])} "
            f"({s['episodes'] / s['one_core_s']:.0f} episodes/s), on two {_s(s['data_s'])} "
            f"({s['episodes'] / s['data_s']:.0f}): {s['one_core_s'] / s['data_s']:.2f} ×."
            for s in alone
        ),
        "",
        "| episodes | KB an episode: telemetry | features | tensors | made by `simulate` in |",
        "|---|---|---|---|---|",
        *(
            f"| {s['episodes']:,} | "
            + " | ".join(
                f"{s['bytes'][kind] / s['episodes'] / 1e3:.1f}"
                for kind in ("telemetry", "features", "tensors")
            )
            + f" | {_s(s['simulate_s'])} |"
            for s in sizes
        ),
        "",
        "Nothing to do: the whole default target. Trainings are not part of the bench: empty files "
        "stand in for what train, predict, evaluate and report make, marked as made by "
        "`snakemake --touch`; `snakemake -n` then says that there is nothing to do. Of trainings "
        "and predictions Snakemake then has no record of params to compare. The run of +100 is "
        "`snakemake data`, all features and tensors.",
        "",
    ]


def _memory(figures: Figures) -> list[str]:
    sizes = figures["sizes"]
    lines = [
        "## Memory",
        "Peaks as the kernel keeps them, in MiB. Ingest and windows: a fresh process on the "
        "largest batch. Any: the largest of all processes under Snakemake, itself included, in "
        "ingest, windows, gather, fit and split; predict, evaluate and report were not run.",
        "",
        "| episodes | ingest | windows | Snakemake, running | Snakemake, idle | any |",
        "|---|---|---|---|---|---|",
        *(
            f"| {s['episodes']:,} | {s['job_peak']['ingest'] / MIB:.0f} | "
            f"{s['job_peak']['windows'] / MIB:.0f} | {s['snakemake_peak'] / MIB:.0f} | "
            f"{s['idle_peak'] / MIB:.0f} | {s['any_peak'] / MIB:.0f} |"
            for s in sizes
        ),
        "",
        "Loading the training and val windows of four hosts of six (`load_split`, warm page "
        "cache, wall time): the quickest of three loads of one process, and its first, which also "
        "waits until a virtual machine's host has found the memory:",
        "",
        "| episodes | mode | GB/s of shard bytes | of the first | shards, GiB | windows | s | "
        "peak, GiB | peak over shards, GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        for mode, load in size["loads"].items():
            start = f"| {size['episodes']:,} | {mode} | "
            if "problem" in load:
                lines.append(f"{start}failed: {load['problem']} | | | | | | |")
                continue
            over = (load["peak_bytes"] - load["shard_bytes"]) / GIB
            lines.append(
                f"{start}{_rate(load):.2f} | "
                f"{load['shard_bytes'] / load['first_seconds'] / 1e9:.2f} | "
                f"{load['shard_bytes'] / GIB:.2f} | "
                f"{load['n_windows']:,} | {load['seconds']:.2f} | "
                f"{load['peak_bytes'] / GIB:.2f} | {over:+.2f} |"
            )
    return [*lines, ""]


def draw(figures: Figures, out: Path) -> None:
    """Wall time against store size, log-log, with the bars at the fleet's size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    n = [size["episodes"] for size in figures["sizes"]]
    lines = [
        ("run", "data_s", "from nothing", "#0072b2", "o"),
        ("arrive", "arrive_s", "100 new episodes", "#d55e00", "s"),
        ("idle", "idle_s", "nothing to do", "#009e73", "^"),
    ]
    right = FLEET * 1.7
    figure, axes = plt.subplots(figsize=(7.2, 4.8), layout="constrained")
    for bar, key, label, colour, marker in lines:
        wall = [size[key] for size in figures["sizes"]]
        axes.plot(n, wall, color=colour, marker=marker, label=label, linewidth=2, markersize=7)
        axes.hlines(BARS[bar], FLEET / 2.2, right, color=colour, linestyle="--", linewidth=2)
        # Beside the axes, where no line can run through it.
        axes.annotate(
            f"bar: {BARS[bar]:.0f} s",
            (right, BARS[bar]),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )
    axes.set(xscale="log", yscale="log", xlabel="episodes in the store", ylabel="wall time, s")
    axes.set_xlim(min(*n, FLEET) / 1.5, right)
    axes.xaxis.set_major_locator(FixedLocator(sorted({*n, 1_000, 10_000, FLEET})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    low = min(size["idle_s"] for size in figures["sizes"])
    high = max(BARS["run"], *(size["data_s"] for size in figures["sizes"]))
    axes.set_ylim(min(low / 1.5, 1.0), high * 2)
    ticks = [s for s in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low / 2 <= s <= high * 2]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", frameon=True, facecolor="white", edgecolor="#dddddd")
    axes.set_title("snakemake on two cores; dashed: the bar at 76,660 episodes", fontsize=11)
    figure.savefig(out, dpi=150, metadata={"Software": None})
    plt.close(figure)


def _jobs(size: Figures) -> str:
    return ", ".join(f"{n} {rule}" for rule, n in sorted(size["dry_jobs"].items()))


def _rate(load: Mapping[str, float]) -> float:
    return load["shard_bytes"] / load["seconds"] / 1e9


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds:.0f} s"


def _gib(n: float) -> str:
    return f"{n / GIB:.2f} GiB"
