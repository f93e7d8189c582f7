"""What the clustered bootstrap costs, beside a loop over scikit-learn's f1_score.

    python -m benchmarks.intervals sample|fleet ROUNDS

Prints JSON: seconds for every figure of both parts and every pair, the most memory that took, and
milliseconds a replicate of macro F1 alone, ours and the loop's. Made-up predictions of twelve
models with three seeds and three baselines; only their number matters here. (Not `statistics.py`:
`peers.py` runs from this folder and means Python's own.)
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.memory import peak_bytes
from cis490.channels import PHASES
from cis490.evaluation.bootstrap import episode_weights
from cis490.evaluation.breakdowns import ALL, Cell, Scored, replicate
from cis490.evaluation.evaluate import score
from cis490.evaluation.tables import Entrant, Provenance, metrics_frame, pairwise_frame

WINDOWS: Final = 11
REPLICATES: Final = 10_000
MODELS, SEEDS, BASELINES = 12, (42, 2025, 7), 3
RUNS: Final = MODELS * len(SEEDS) + BASELINES
PROFILES: Final = ("beacon", "churn", "drip", "miner", "none", "scan", "walk")
WORKS: Final = ("backup", "build", "idle", "install", "office", "report", "sync")
# Episodes and hosts of test and of val; of the sample store, and of a fleet.
CASES: Final = {
    "sample": {"test": (121, 3), "val": (21, 3)},
    "fleet": {"test": (24_000, 4), "val": (3_000, 8)},
}


def measure(case: str, rounds: int) -> dict[str, Any]:
    """Seconds, memory and milliseconds a replicate of one case."""
    parts = {part: _scored(*size, seed=len(part)) for part, size in CASES[case].items()}
    entrants = _entrants()
    origin = Provenance("host", "0" * 64, REPLICATES)

    def everything() -> None:
        rows, pairs = [], []
        for part, scored in parts.items():
            figures, of_pairs = score(part, scored, entrants, origin, paired=part == "test")
            rows += figures
            pairs += of_pairs
        found.update(rows=len(metrics_frame(rows)), pairs=len(pairwise_frame(pairs)))

    found: dict[str, int] = {}
    began = time.process_time()
    seconds = [_seconds(everything) for _ in range(rounds)]
    cpu = (time.process_time() - began) / rounds
    peak = peak_bytes()  # before scikit-learn is there
    test = parts["test"]
    ours = _seconds(lambda: _macro_f1(test)) / REPLICATES
    loop, n_loop = _sklearn(test)
    return {
        **{"episodes": len(test.profile), "windows": len(test.truth), "runs": len(test.predicted)},
        **{"replicates": REPLICATES, "rounds": rounds, "seconds": statistics.median(seconds)},
        "cpu_s": cpu,
        **{"peak_bytes": peak, "ours_ms": ours * 1e3, "loop_ms": loop * 1e3, "n_loop": n_loop},
        **found,
    }


def _seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _macro_f1(scored: Scored) -> None:
    everything = np.ones(len(scored.profile), dtype=bool)
    replicate(scored, REPLICATES, [Cell.of(ALL, scored.counts(), everything)])


def _sklearn(scored: Scored) -> tuple[float, int]:
    """Seconds a replicate of the usual loop, over all runs, and how many scores were timed."""
    score_of, some = usual(scored), scored.predicted[:10]
    times = [_seconds(partial(score_of, run)) for run in some]
    return statistics.median(times) * len(scored.predicted), len(some)


def usual(scored: Scored) -> Callable[[np.ndarray], float]:
    """Macro F1 of a run in the first replicate, as the usual loop computes it.

    What can be made ready is: each episode's windows, and which episodes are drawn.
    """
    from sklearn.metrics import f1_score

    options = {"labels": np.unique(scored.truth), "average": "macro", "zero_division": 0}
    of_episode = np.split(np.arange(len(scored.truth)), np.flatnonzero(np.diff(scored.unit)) + 1)
    weights = next(episode_weights(scored.profile, 1))[0].astype(int)
    episodes = [of_episode[i] for i in np.repeat(np.arange(len(weights)), weights)]

    def score_of(run: np.ndarray) -> float:
        drawn = np.concatenate(episodes)
        return float(f1_score(scored.truth[drawn], run[drawn], **options))

    return score_of


def _scored(n: int, hosts: int, seed: int) -> Scored:
    """Episodes of all profiles, two samples each, some of whose runs are mostly right."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(n), WINDOWS)
    profile = [PROFILES[i % len(PROFILES)] for i in range(n)]
    truth = np.sort(rng.integers(len(PHASES), size=(n, WINDOWS)), axis=1)
    truth[[name == "none" for name in profile]] = 0
    skill = rng.beta(4, 2, size=(RUNS, n, 1))
    wrong = rng.integers(len(PHASES), size=(RUNS, n, WINDOWS), dtype=np.int8)
    right = rng.random((RUNS, n, WINDOWS), dtype=np.float32) < skill
    return Scored(
        profile=profile,
        host=[f"host{i % hosts}" for i in rng.permutation(n)],
        unit=unit,
        truth=truth.ravel(),
        phase_share=rng.uniform(0.5, 1, len(unit)),
        predicted=np.where(right, truth, wrong).reshape(RUNS, -1).astype(np.int64),
        sample=[f"{name}-{'ab'[i // len(PROFILES) % 2]}" for i, name in enumerate(profile)],
        status=[("accepted", "degraded")[i % 9 == 0] for i in range(n)],
        background=[rng.choice(WORKS, 1 + i % 2, replace=False).tolist() for i in range(n)],
    )


def _entrants() -> list[Entrant]:
    models = [
        Entrant(
            f"model{m // 2}", ("oracle", "realistic")[m % 2], SEEDS, tuple(range(3 * m, 3 * m + 3))
        )
        for m in range(MODELS)
    ]
    first = MODELS * len(SEEDS)
    company = [Entrant(f"company{b}", "baseline", (), (first + b,)) for b in range(BASELINES)]
    return models + company


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
