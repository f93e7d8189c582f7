"""Whether a corpus is fit for use: nothing but the channels may tell what phase it is.

Each check has one limit, a named constant in `checks/` with its reason; docs/lab.md has them for
people. A corpus is fit if none is broken and all could be judged that a corpus can be cheated on
without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cis490.episodes.validate import Entry
from cis490.files import StrPath
from cis490.lab.checks import clock, enough, infection, neighbours, observers
from cis490.lab.checks.finding import Finding
from cis490.lab.corpus import Corpus, read_corpus
from cis490.markdown import table

# What must be known of a corpus before anybody can say that it is fit.
NEEDED: Final = ("window index", "benign onsets", "phases", "profiles")


@dataclass(frozen=True)
class Judgement:
    """Whether a corpus is fit, and why.

    Attributes:
        fit: no fault, and all judged that must be.
        reasons: why not, a sentence each.
        n_usable: episodes that were judged.
        left_out: the others, by status.
        reason_codes: of the others, how many have each.
        findings: one a check.
    """

    fit: bool
    reasons: list[str]
    n_usable: int
    left_out: dict[str, int]
    reason_codes: dict[str, int]
    findings: list[Finding]


def check(
    store: StrPath, progress: Callable[[Sequence[Entry]], Iterator[Entry]] = iter
) -> Judgement:
    """Judge a store.

    Args:
        store: folder of episodes, only read.
        progress: passes its entries on, and may count them.

    Raises:
        StoreError: there is no store, or no usable episode in it.
    """
    return judge(read_corpus(store, progress))


def judge(corpus: Corpus) -> Judgement:
    """Judge what was read."""
    findings = [
        clock.window_index(corpus),
        clock.boot_time(corpus),
        infection.benign_onsets(corpus),
        infection.label_words(corpus),
        infection.command_shapes(corpus),
        observers.clocks(corpus),
        observers.gaps(corpus),
        neighbours.neighbours(corpus),
        enough.phases(corpus),
        enough.profiles(corpus),
    ]
    reasons = [
        f"{found.check}: {found.what} ({found.limit})"
        for found in findings
        if found.state == "fault" or (found.state == "unknown" and found.check in NEEDED)
    ]
    return Judgement(
        fit=not reasons,
        reasons=reasons,
        n_usable=len(corpus.episodes),
        left_out=dict(sorted(corpus.left_out.items())),
        reason_codes=dict(sorted(corpus.reasons.items())),
        findings=findings,
    )


def render(judgement: Judgement) -> str:
    """The judgement for people: verdict, a row a check, and tables of what may be asked next."""
    left_out = sum(judgement.left_out.values())
    lines = [f"# {'Fit for use' if judgement.fit else 'Not fit for use'}", ""]
    lines += [f"- {reason}" for reason in judgement.reasons]
    lines += [""] * bool(judgement.reasons)
    lines.append(f"{judgement.n_usable:,} episodes judged, {left_out:,} left out")
    if left_out:
        told = [f"{n} {what}" for what, n in judgement.left_out.items()]
        codes = [f"{code} {n}" for code, n in judgement.reason_codes.items()]
        lines[-1] += f": {', '.join(told)} ({', '.join(codes)})"
    rows = [[each.check, each.state, each.what, each.limit] for each in judgement.findings]
    lines += ["", *table(["check", "state", "found", "limit"], rows, "llll")]
    for each in judgement.findings:
        if each.rows:
            lines += ["", f"## {each.check[0].upper()}{each.check[1:]}", ""]
            lines += table(each.header, each.rows, each.align)
    return "\n".join([*lines, ""])
