"""The commands `cis490 lab …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cis490.logs import MILESTONE, logger

if TYPE_CHECKING:
    from cis490.lab.schedule import EpisodePlan


def add_commands(lab: argparse.ArgumentParser) -> None:
    """Put the lab's commands under `cis490 lab`."""
    commands = lab.add_subparsers(title="commands", metavar="COMMAND", required=True)

    build = _command(commands, "build", _build, "make the image that guests boot from")
    build.description = (
        "Make the image that guests boot from: Debian's kernel and busybox, fetched and unpacked "
        "but not installed, and the programs of the lab. No root is needed. The same packages "
        "give the same bytes."
    )
    _cache_argument(build)

    plan = _command(commands, "plan", _plan, "print what would be recorded")
    plan.description = (
        "Print what `cis490 lab record` with the same numbers would record: times are seconds "
        "after a record's start. A longer plan begins with the shorter one."
    )
    _plan_arguments(plan)
    _parallel_argument(plan)

    record = _command(commands, "record", _record, "record episodes into a store")
    record.description = (
        "Record real episodes of small QEMU guests, each in a network of its own without a way "
        "out. What the store holds already is left out, so the same command goes on after a stop. "
        "Ctrl-C leaves nothing half-written and nothing running."
    )
    record.add_argument("store", type=Path, metavar="STORE", help="folder of episodes")
    _plan_arguments(record)
    _parallel_argument(record)
    _cache_argument(record)
    record.add_argument(
        "--fault",
        choices=["netflow-uptime"],
        help="record as the first corpus did: t_mono_ns of netflow counts from the host's boot",
    )

    check = _command(commands, "check", _check, "judge a corpus: fit for use or not, and why")
    check.description = (
        "Judge a store of recorded episodes: whether a clock, a command or a neighbour tells what "
        "only the channels should, and whether there is enough of everything. Exit code 1 if it "
        "is not fit for use; docs/lab.md has what each check means."
    )
    check.add_argument("store", type=Path, metavar="STORE", help="folder of episodes")
    check.add_argument("--json", action="store_true", help="for machines")


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    from cis490.lab.schedule import SEED, USUAL_S

    parser.add_argument(
        "--episodes", type=_count, required=True, metavar="N", help="how many, all in all"
    )
    parser.add_argument(
        "--hosts", type=Path, metavar="FILE", help="configurations (default: nine that ship)"
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help=f"another gives another plan (default: {SEED})"
    )
    parser.add_argument(
        "--duration",
        type=_duration,
        default=USUAL_S,
        metavar="SECONDS",
        help=f"of each (default: {USUAL_S:g})",
    )


def _parallel_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parallel", type=_count, default=3, metavar="N", help="guests at once (default: 3)"
    )


def _cache_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of the image, the packages that it is made of, and guests' disks "
        "(default: ~/.cache/cis490/lab)",
    )


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say each thing that happens")
    parser.set_defaults(run=run, name=f"lab {name}")
    return parser


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1,000,000")


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 4 <= value <= 3600:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 4 to 3600")


def _planned(options: argparse.Namespace) -> list[EpisodePlan]:
    from cis490.lab.hosts import read_hosts
    from cis490.lab.schedule import plan

    hosts = read_hosts(options.hosts)
    return plan(hosts, options.episodes, seed=options.seed, duration_s=options.duration)


def _build(options: argparse.Namespace) -> None:
    from cis490.lab import image

    image.build(options.cache, lambda text: logger.log(MILESTONE, text))


def _plan(options: argparse.Namespace) -> None:
    from cis490.lab.schedule import render

    print(render(_planned(options), options.parallel), end="")


def _record(options: argparse.Namespace) -> None:
    from cis490.lab.record import record

    record(
        options.store,
        _planned(options),
        parallel=options.parallel,
        cache=options.cache,
        uptime_netflow=options.fault == "netflow-uptime",
        live=sys.stderr.isatty() and not options.verbose,
    )


def _check(options: argparse.Namespace) -> None:
    from cis490 import files
    from cis490.cli import progress
    from cis490.lab.check import check, render

    judgement = check(options.store, lambda entries: progress(entries, len(entries), "episodes"))
    print(files.to_json(judgement) if options.json else render(judgement), end="")
    if not judgement.fit:
        sys.exit(1)
