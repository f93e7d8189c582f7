import numpy as np

from cis490.evaluation.coverage import LARGE, covering


def counts(n: int, spread: float, seed: int = 0) -> np.ndarray:
    """(1, n, 5, 5): two phases; `spread` is how differently episodes are judged."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((1, n, 5, 5), np.int64)
    for episode in range(n):
        right = int(np.clip(rng.normal(7, 3 * spread), 0, 10))
        for phase in (0, 3):
            matrix[0, episode, phase, phase] = right
            matrix[0, episode, phase, 3 - phase] = 10 - right
    return matrix


def share(n: int, spread: float, kind: str = "percentile") -> float:
    covered, measured = covering(counts(n, spread), ["p"] * n)[kind]
    return covered / measured


def test_intervals_cover_less_than_they_say_at_few_episodes() -> None:
    assert share(5, 1.0) < 0.92
    assert 0.90 < share(60, 1.0) < 0.98
    assert share(5, 1.0) < share(60, 1.0)
    assert 0.90 < share(60, 1.0, "bca") < 0.98


def test_the_mean_over_seeds_is_what_is_covered() -> None:
    one = counts(20, 1.0)
    seeds = np.concatenate([one, one])
    assert covering(seeds, ["p"] * 20) == covering(one, ["p"] * 20)


def test_it_is_the_same_each_time() -> None:
    assert covering(counts(12, 1.0), ["p", "q"] * 6) == covering(counts(12, 1.0), ["p", "q"] * 6)


def test_nothing_is_said_where_nothing_can_be_measured() -> None:
    assert covering(counts(1, 1.0), ["p"]) == {}
    assert covering(counts(4, 0.0), ["p"] * 4) == {}
    assert covering(counts(4, 1.0), list("pqrs")) == {}
    assert covering(counts(LARGE + 1, 1.0), ["p"] * (LARGE + 1)) == {}
