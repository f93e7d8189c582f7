"""What is wrong with a set-up, and how to mend it, before a run finds out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cis490.doctor import cluster, folder, machine
from cis490.doctor.finding import Finding, Findings
from cis490.errors import Cis490Error


def examine(
    load: Callable[[], Mapping[str, Any]], results: Path, profile: Path | None = None
) -> list[Finding]:
    """Check everything that a run in this working directory needs; nothing is changed.

    Args:
        load: gives the resolved config.
        results: the folder of results.
        profile: of Snakemake, whose executor is checked too.
    """
    findings: list[Finding] = []
    try:
        config: Mapping[str, Any] | None = load()
        findings.append(Finding("ok", "settings", "every setting is known and of its type"))
    except Cis490Error as error:
        config = None
        findings.append(Finding("fault", "settings", str(error), "correct it, then ask again"))
    checks: list[tuple[str, Callable[[], Findings]]] = [
        ("python", machine.python),
        ("packages", lambda: machine.packages(config)),
        ("snakemake", machine.snakemake),
        ("compiled", machine.compiled_parts),
        ("device", lambda: machine.device(config, elsewhere=cluster.asks_for_slurm(profile))),
        ("slurm", lambda: cluster.slurm(config, profile)),
        ("folder", lambda: folder.writable(results)),
        ("locks", folder.locks),
        ("models", lambda: folder.models(results)),
    ]
    if config is not None:
        settings = config
        checks += [
            ("settings", lambda: folder.architectures(settings)),
            ("store", lambda: folder.store(settings)),
            ("disk", lambda: folder.disk(settings, results)),
        ]
    for name, check in checks:
        findings += _findings_of(name, check)
    return findings


def _findings_of(name: str, check: Callable[[], Findings]) -> list[Finding]:
    """A check that breaks is a finding too, and keeps no other from its turn."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except Cis490Error as error:
        found.append(Finding("fault", name, str(error)))
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        found.append(Finding("fault", name, f"could not be checked: {told}"))
    return found


def render(findings: Sequence[Finding]) -> str:
    """A line a finding, and what they come to."""
    lines = [
        f"{finding.state:<8} {finding.check:<10} {finding.what}"
        + (f"; mend: {finding.mend}" if finding.mend else "")
        for finding in findings
    ]
    n = {state: sum(each.state == state for each in findings) for state in ("warning", "fault")}
    return "\n".join([*lines, f"faults: {n['fault']}, warnings: {n['warning']}", ""])
