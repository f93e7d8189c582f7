"""Snakemake's logger plugin `cis490`: it tells `cis490.runs` what Snakemake does.

    snakemake --logger cis490 --cores 2

Each call of snakemake imports this module, whether it asks for the plugin or not: it imports
nothing but the interface until a run begins.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

if TYPE_CHECKING:
    from cis490.runs.view import View

# What Snakemake says of itself and nobody needs who watches a run; the rest is passed on.
_CHATTER: Final = re.compile(
    r"Building DAG of jobs|Using shell|Select jobs to execute|Conda environments: ignored"
    r"|Singularity containers: ignored|Assuming unrestricted shared filesystem"
    r"|Using (workflow specific )?profiles?\b|host: |Complete log|Elapsed time: |Execute \d+ jobs"
)

# Somebody pressed Ctrl-C or sent SIGTERM; Snakemake may say so once more for each job that ends.
_STOPPING: Final = re.compile(r"Terminating processes on user request|Will exit after finishing")
# A failure that Snakemake tells without the event of one: the job's program ended well.
_INCOMPLETE: Final = re.compile(r"^Job (\d+) +completed successfully, but", re.M)


class LogHandler(LogHandlerBase):
    """Turns records into events; the usual output is replaced only where nobody asked for it."""

    def __post_init__(self) -> None:
        """Nothing is opened before a run begins: the working directory is not known yet."""
        if not hasattr(self, "level"):  # interfaces before 1.2.4 leave it to us
            logging.Handler.__init__(self)
        asked = self.common_settings
        quiet = {str(kind).rpartition(".")[2].lower() for kind in asked.quiet or ()}
        self._silent = "all" in quiet
        self._speaks = not quiet & {"all", "progress", "rules"}
        # Who asks for more than usual gets Snakemake's own words.
        self._replaces = not (
            asked.dryrun or asked.verbose or asked.printshellcmds or asked.debug_dag
        )
        self._view: View | None = None
        self._room: dict[str, float] = {}
        self._after: dict[str, list[str]] = {}
        self._remote = False
        self._header: dict[str, Any] = {}
        self._told = self._broken = self._stopping = False
        self._live = os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"
        if not asked.dryrun:
            with suppress(ImportError):  # it fails again, and is told, when it is needed
                # Here, for by the time that jobs start it would come too late.
                import cis490.runs.view

                if self._live and self._replaces and self._speaks:
                    import cis490.runs.screen  # noqa: F401

    @property
    def writes_to_stream(self) -> bool:
        """Whether this takes the place of the usual output."""
        return self._replaces

    @property
    def writes_to_file(self) -> bool:
        """The journal is none of the log files that Snakemake names at the end."""
        return False

    @property
    def has_filter(self) -> bool:
        """All events are wanted, also those that `--quiet` hides."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Errors are told in Snakemake's own words."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """Which rule waits for which says how long a run will take."""
        return not self.common_settings.dryrun

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record; a fault of ours never stops a run, and hides no error of another."""
        if self.common_settings.dryrun:
            return
        try:
            if not self._broken:
                self._take(record)
                return
        except Exception as error:
            self._broken = True
            self._print(f"cis490: no more is shown of this run ({type(error).__name__}: {error})")
        if record.levelno >= logging.WARNING or self._is_news(record):
            self._print(self.format(record))

    def close(self) -> None:
        """End the view and the journal of the run."""
        view, self._view = self._view, None
        try:
            if view is not None:
                view.close()
        except Exception as error:
            self._print(f"cis490: the view did not end well ({type(error).__name__}: {error})")
        super().close()

    def _take(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.WORKFLOW_STARTED:
            self._view = self._view or self._make()
            self._header = _header(record)
        elif event == LogEvent.RULEGRAPH:
            self._after = _after(getattr(record, "rulegraph", {}))
        elif event == LogEvent.RESOURCES_INFO:
            self._provided(record)
        elif event == LogEvent.RUN_INFO:
            self._plan(record)
        elif event == LogEvent.JOB_INFO:
            self._tell(_started(record), record)
        elif event == LogEvent.JOB_FINISHED:
            self._tell({"event": "job_finished", "jobid": _number(record)}, record)
        elif event == LogEvent.JOB_ERROR:
            self._fail(vars(record), record)
        elif event == LogEvent.GROUP_ERROR:
            for job in getattr(record, "job_error_info", None) or ():
                self._fail(job, record)
            self._pass_on(record)
        elif event == LogEvent.ERROR:
            message = record.getMessage()
            self._tell({"event": "error", "message": message[:2000]}, record)
            self._pass_on(record)
            if incomplete := _INCOMPLETE.search(message):
                self._tell({"event": "job_failed", "jobid": int(incomplete[1])}, record)
        elif event is None and _STOPPING.match(record.getMessage()):
            if not self._stopping:
                self._stopping = True
                self._tell({"event": "stopping"}, record)
                self._pass_on(record)
        elif event is None and (record.levelno >= logging.WARNING or self._is_news(record)):
            self._pass_on(record)

    def _is_news(self, record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) is not None or record.levelno < logging.INFO:
            return False
        return bool(record.getMessage().strip()) and not _CHATTER.match(record.getMessage())

    def _tell(self, event: dict[str, Any], record: logging.LogRecord) -> None:
        self._view = self._view or self._make()
        if not self._told:
            self._told = True
            begin = {"event": "run_started", "pid": os.getpid(), **self._header}
            self._view.event(begin, record.created)
        self._view.event(event, record.created)

    def _make(self) -> View:
        from cis490.runs.view import View

        return View(
            Path.cwd(),
            speaks=self._replaces and self._speaks,
            live=self._live,
            colour=not self.common_settings.nocolor,
        )

    def _provided(self, record: logging.LogRecord) -> None:
        nodes = getattr(record, "nodes", None)
        self._remote |= nodes is not None
        given = {
            "_cores": getattr(record, "cores", None),
            "_jobs": nodes if nodes != sys.maxsize else None,
        }
        self._room |= _numbers(given) | _own(getattr(record, "provided_resources", None))

    def _plan(self, record: logging.LogRecord) -> None:
        given = {k: v for k, v in getattr(record, "stats", {}).items() if k != "total"}
        # Older versions give them by name.
        depths = _depths(given, self._after)
        jobs = dict(sorted(given.items(), key=lambda rule: depths[rule[0]]))
        event = {"event": "planned", "jobs": jobs, "room": self._room, "remote": self._remote}
        after = {rule: [one for one in self._after.get(rule, ()) if one in jobs] for rule in jobs}
        self._tell({**event, "after": _present(after)}, record)

    def _fail(self, info: Mapping[str, Any], record: logging.LogRecord) -> None:
        event = {"event": "job_failed", "jobid": info["jobid"], "rule": info.get("rule_name")}
        aux = {k: str(v) for k, v in (info.get("aux") or {}).items()}
        said = {"message": str(info.get("rule_msg") or "")[:2000], "aux": aux}
        self._tell({**event, "log": list(info.get("log") or ()), **_present(said)}, record)
        if self.common_settings.show_failed_logs or not self._speaks:
            self._pass_on(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        """Say what Snakemake says, in its words, unless `--quiet` hides it."""
        if not self._replaces or self._silent:
            return
        text = self.format(record)
        if not text or text == "None":
            return
        if self._view is not None:
            self._view.say(text)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        if self._replaces and not self._silent:
            with suppress(OSError, ValueError):  # nobody listens any more
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()


def _header(record: logging.LogRecord) -> dict[str, Any]:
    names = {
        "host": "host",
        "cmd": "command",
        "snakemake_version": "snakemake",
        "config_md5": "config_md5",
    }
    given = {new: getattr(record, old, None) for old, new in names.items()}
    return _present({name: str(value) for name, value in given.items() if value is not None})


def _after(graph: Mapping[str, Any]) -> dict[str, list[str]]:
    """Rule and the rules that it waits for."""
    after: dict[str, set[str]] = {}
    for link in graph.get("links", ()):
        if link["sourcerule"] != link["targetrule"]:
            after.setdefault(link["targetrule"], set()).add(link["sourcerule"])
    return {rule: sorted(before) for rule, before in after.items()}


def _depths(rules: Iterable[str], after: Mapping[str, list[str]]) -> dict[str, int]:
    """Of each rule, how many stand before it in the longest chain."""
    depths = dict.fromkeys(rules, 0)
    for _ in depths:  # as often as a chain is long, also where rules wait for each other
        for rule, before in after.items():
            deepest = max((depths.get(one, -1) for one in before), default=-1)
            if rule in depths:
                depths[rule] = min(max(depths[rule], deepest + 1), len(depths))
    return depths


def _started(record: logging.LogRecord) -> dict[str, Any]:
    given = vars(record)
    event = {
        "event": "job_started",
        "jobid": given["jobid"],
        "rule": given["rule_name"],
        "wildcards": {k: str(v) for k, v in dict(given.get("wildcards") or {}).items()},
        "threads": given.get("threads") or 1,
        "resources": _own(given.get("resources")),
        "log": [str(path) for path in given.get("log") or ()],
        "benchmark": str(given["benchmark"]) if given.get("benchmark") else None,
        "final": not given.get("output"),
        "reason": str(given.get("reason") or "")[:200],
    }
    return {"event": event["event"], **_present(event)}


def _number(record: logging.LogRecord) -> int:
    given = vars(record)
    return int(given["job_id"] if "job_id" in given else given["jobid"])


def _own(resources: Any) -> dict[str, float]:
    """Resources that rules name; Snakemake's, which begin with a line, say the same as threads."""
    given = dict(resources.items()) if hasattr(resources, "items") else {}
    # A job's are plain; those of the run are objects that have a value.
    given = {name: getattr(n, "value", n) for name, n in given.items()}
    return {name: n for name, n in _numbers(given).items() if not name.startswith("_")}


def _numbers(given: Mapping[str, Any]) -> dict[str, float]:
    """Those that are numbers."""
    return {
        str(name): value
        for name, value in given.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _present(event: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in event.items() if v or (v == 0 and v is not False)}
