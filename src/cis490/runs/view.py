"""A run while it goes on: its events into the journal, and how it is doing onto the terminal.

Whatever fails here, the run goes on: what failed is left out, with one line that says so.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cis490.logs import WATCHED
from cis490.runs import benchmarks, lines
from cis490.runs.estimate import Earlier, Left, time_left
from cis490.runs.journal import NAME, Event, Journal, stamped
from cis490.runs.state import Job, State
from cis490.words import about, duration

if TYPE_CHECKING:
    from cis490.runs.capture import Capture
    from cis490.runs.processes import Processes
    from cis490.runs.screen import Screen

_TICK_S: Final = 1.0
_SILENCE_S: Final = 60.0  # without a terminal: after so long something is said
_SHARE: Final = 0.02  # of a core: what estimates may cost


class View:
    """Takes the events of one run, from any thread.

    Args:
        folder: its working directory, absolute; the journal is its results/run.jsonl.
        speaks: whether to say anything of the run; if not, only the journal is written.
        live: whether stderr is a terminal whose lines may be rewritten.
        colour: whether it may have colours.
    """

    def __init__(
        self, folder: Path, *, speaks: bool, live: bool = False, colour: bool = True
    ) -> None:
        self.state = State()
        self._folder = folder
        self._speaks, self._wants_live, self._colour = speaks, speaks and live, colour
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._spoke = time.monotonic()
        self._cpu = _children()
        self._left: Left | None = None
        self._estimate_at = 0.0
        self._error = False
        self._ticker: threading.Thread | None = None
        self._run = str(uuid.uuid4())
        self._journal: Journal | None = Journal(folder / "results" / NAME)
        self._earlier: Earlier | None = None
        self._processes: Processes | None = None
        self._screen: Screen | None = None
        self._capture: Capture | None = None
        with self._without("_earlier", "time left"):
            # Now, before jobs write their benchmarks anew.
            self._earlier = Earlier.of(folder / "results")

    def event(self, event: Event, at: float) -> None:
        """Take in one event that happened at `at`, seconds since 1970."""
        with self._lock:
            kind = event["event"]
            if kind in ("job_finished", "job_failed"):
                event = {**event, **self._used(event["jobid"], kind)}
            whole = stamped(self._run, event, at)
            if self._journal is not None:
                with self._without("_journal", "journal"):
                    self._journal.append(whole)
            ended = self.state.apply(whole)
            self._error |= kind == "error"
            if kind == "planned":
                self._begin()
            elif ended is not None and self._speaks:
                self._say_ended(kind, ended)

    def _say_ended(self, kind: str, job: Job) -> None:
        if kind == "job_failed":
            self.say("\n".join(lines.failure(job, self._folder)))
        elif self._screen is None and not job.final:
            self.say(lines.done(self.state, job))

    def _used(self, number: int, kind: str) -> dict[str, float]:
        """What a job that ended used, from its benchmark and from our own looks at it."""
        job = self.state.running.get(number)
        if job is None:
            return {}
        seen = self._processes.usage.get(number) if self._processes else None
        timed = None
        if kind == "job_finished" and job.benchmark:
            timed = benchmarks.read(self._folder / job.benchmark, job.rule)
        used = {
            "cpu_seconds": max(
                seen.cpu_seconds if seen else 0.0, (timed and timed.cpu_seconds) or 0.0
            ),
            "peak_bytes": max(
                seen.peak_bytes if seen else 0, int((timed and timed.peak_bytes) or 0)
            ),
        }
        if timed:
            used["benchmark_seconds"] = timed.seconds
        return {name: round(value, 2) for name, value in used.items() if value}

    def say(self, text: str) -> None:
        """Say something to people, to stay on the terminal."""
        with self._lock:
            self._spoke = time.monotonic()
            if self._screen is not None:
                with self._without("_screen", "live view"):
                    self._screen.say(text)
                    return
            with suppress(OSError, ValueError):  # nobody listens any more
                sys.stderr.write(f"{text}\n")  # in one piece: jobs write there too
                sys.stderr.flush()

    def _begin(self) -> None:
        if self._wants_live:
            with self._without("_screen", "live view"):
                from cis490.runs.capture import Capture
                from cis490.runs.screen import Screen

                self._capture = Capture()
                self._screen = Screen(self._capture.terminal, self._folder, colour=self._colour)
                os.environ[WATCHED] = "1"
        if self._speaks and self._screen is None:
            self.say(lines.plan(self.state))
        if not self.state.remote:
            with self._without("_processes", "memory of jobs"):
                from cis490.runs.processes import Processes

                self._processes = Processes()
        self._ticker = threading.Thread(target=self._tick, name="cis490-watch", daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_S):
            with suppress(Exception), self._lock:
                self._look()

    def _look(self) -> None:
        state, now = self.state, time.time()
        if self._processes is not None:
            with self._without("_processes", "memory of jobs"):
                self._processes.look(
                    {
                        number: self._folder / job.log[0]
                        for number, job in state.running.items()
                        if job.log
                    }
                )
        if self._speaks:
            self._forecast(now)
        self._pass_on()
        if self._screen is not None:
            with self._without("_screen", "live view"):
                usage = self._processes.usage if self._processes else {}
                self._screen.show(state, usage, self._left, now)
        elif self._speaks and time.monotonic() - self._spoke > _SILENCE_S and state.running:
            self.say(self._still(now))

    def _forecast(self, now: float) -> None:
        began = time.monotonic()
        if self._earlier is None or began < self._estimate_at:
            return
        with self._without("_earlier", "time left"):
            self._left = time_left(self.state, self._earlier, now)
            ended = time.monotonic()
            self._estimate_at = ended + (ended - began) / _SHARE

    def _still(self, now: float) -> str:
        """What is running, in a line."""
        running = sorted(self.state.running.values(), key=lambda job: job.started)
        parts = [f"{job} ({duration(now - job.started)})" for job in running[:3]]
        parts += [f"{len(running) - 3} more"] * (len(running) > 3)
        left = f"; about {about(self._left.seconds)} left" if self._left else ""
        return f"running: {', '.join(parts)}{left}"

    def _pass_on(self) -> None:
        """Show what jobs wrote to the terminal above the view."""
        if self._capture is not None and (text := self._capture.take().rstrip("\n")):
            self.say(text)

    @contextmanager
    def _without(self, part: str, name: str) -> Iterator[None]:
        """Go on without `part` if it fails, and say so once."""
        try:
            yield
        except Exception as error:
            failed = getattr(self, part)
            setattr(self, part, None)
            if part == "_screen":
                self._wants_live = False
                with suppress(Exception):  # None, if it never came to be
                    failed.close()
                self._give_back()
            if self._speaks or part == "_journal":
                reason = f"{type(error).__name__}: {error}"
                self.say(f"cis490: the run goes on without its {name} ({reason})")

    def _give_back(self) -> None:
        """Let jobs write to the terminal again."""
        os.environ.pop(WATCHED, None)
        capture, self._capture = self._capture, None
        if capture is not None:
            with suppress(OSError, ValueError):
                sys.stderr.write(capture.close())

    def close(self) -> None:
        """End the run: take the view away, say how it went, and write it down."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join(timeout=5)
        with self._lock:
            self._close_screen()
            if self.state.began is None and not self.state.planned:
                return
            self.event({"event": "run_finished", **self._outcome()}, time.time())
            if self._speaks and self.state.planned:
                self.say("\n".join(lines.end(self.state)))
            if self._journal is not None:
                self._journal.close()

    def _close_screen(self) -> None:
        with self._without("_screen", "live view"):
            self._pass_on()
            if self._screen is not None:
                self._screen.close()
        self._screen = None
        self._give_back()

    def _outcome(self) -> Event:
        state = self.state
        complete = state.planned and len(state.done) >= state.n_planned and not state.failed
        # Of a job that was tried again there is an error too, and of a run that somebody stops.
        failed = state.failed or (self._error and not state.stopping)
        outcome = "finished" if complete else "failed" if failed else "stopped"
        event: Event = {
            "outcome": outcome,
            "done": len(state.done),
            "failed": len(state.failed),
        }
        if not state.remote and state.planned:
            # Exact, for those that ended; what is summed over looks misses the last moments.
            event["cpu_seconds"] = round(_children() - self._cpu, 2)
        return event


def _children() -> float:
    """Processor time of all processes below this one that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
