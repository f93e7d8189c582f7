"""The filter of phases: what is counted, what is believed, and that it never looks ahead."""

import numpy as np
import polars as pl
import pytest

from cis490.training.phases import UNSEEN, PhaseFilter


def rows_of(*lengths):
    ids = np.repeat([f"e{i}" for i in range(len(lengths))], lengths)
    windows = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    return pl.DataFrame({"episode_id": ids, "window": windows})


def fitted(weighing="none"):
    y = np.array([0, 0, 1, 1, 2, 0, 0, 0])  # two episodes
    return PhaseFilter.fit(rows_of(5, 3), y, 4, weighing=weighing)


def test_pairs_are_counted_within_episodes_and_first_windows_apart():
    found = fitted()
    pairs = np.full((4, 4), UNSEEN)
    pairs[0, 0] += 3
    pairs[0, 1] += 1
    pairs[1, 1] += 1
    pairs[1, 2] += 1
    np.testing.assert_allclose(found.transition, pairs / pairs.sum(1, keepdims=True))
    first = np.array([2, 0, 0, 0]) + UNSEEN
    np.testing.assert_allclose(found.first, first / first.sum())
    np.testing.assert_allclose(found.prior, [5 / 8, 2 / 8, 1 / 8, 0])


def test_windows_that_lack_are_no_pair():
    rows = rows_of(3).with_columns(window=pl.Series([0, 1, 3], dtype=pl.Int32))
    found = PhaseFilter.fit(rows, np.array([0, 0, 1]), 2, weighing="none")
    assert found.transition[0, 1] == pytest.approx(UNSEEN / (1 + 2 * UNSEEN))


def test_the_prior_is_that_of_the_weighed_training():
    weighted, balanced = fitted("weighted").prior, fitted("balanced").prior
    np.testing.assert_allclose(weighted[:3], 1 / 3, rtol=1e-6)  # weights here make all alike
    np.testing.assert_allclose(balanced, [1 / 3, 1 / 3, 1 / 3, 0])


def forward(model, probabilities):
    """The textbook's forward pass of one episode, by sums over all paths of states."""
    n, k = probabilities.shape
    says = probabilities / np.where(model.prior > 0, model.prior, np.inf)
    out = []
    for last in range(n):
        total = np.zeros(k)
        for path in np.ndindex(*[k] * (last + 1)):
            chance = model.first[path[0]] * says[0, path[0]]
            for i in range(1, last + 1):
                chance *= model.transition[path[i - 1], path[i]] * says[i, path[i]]
            total[path[-1]] += chance
        out.append(total / total.sum())
    return np.array(out)


def test_belief_is_the_sum_over_all_ways_to_come_there():
    model, rng = fitted(), np.random.default_rng(0)
    says = rng.dirichlet(np.ones(4), 5)
    np.testing.assert_allclose(model.apply(says, rows_of(5)), forward(model, says), atol=1e-12)


def test_episodes_do_not_see_each_other_nor_a_window_those_after_it():
    model, rng = fitted(), np.random.default_rng(1)
    says, rows = rng.dirichlet(np.ones(4), 9), rows_of(5, 4)
    whole = model.apply(says, rows)
    np.testing.assert_allclose(whole[5:], model.apply(says[5:], rows_of(4)))
    np.testing.assert_allclose(whole[:3], model.apply(says[:3], rows_of(3)))
    order = rng.permutation(9)
    np.testing.assert_allclose(model.apply(says[order], rows[order]), whole[order])
    np.testing.assert_allclose(whole.sum(1), 1)


def test_over_a_window_that_lacks_belief_moves_on():
    model = fitted()
    says = np.array([[0.1, 0.8, 0.1, 0.0], [0.25, 0.25, 0.25, 0.25]])
    rows = rows_of(2).with_columns(window=pl.Series([0, 2], dtype=pl.Int32))
    first = model.first * says[0] / np.where(model.prior > 0, model.prior, np.inf)
    moved = first / first.sum() @ model.transition @ model.transition
    moved *= says[1] / np.where(model.prior > 0, model.prior, np.inf)
    np.testing.assert_allclose(model.apply(says, rows)[1], moved / moved.sum())


def test_a_window_certain_of_what_training_never_saw_changes_nothing():
    model = fitted()
    says = np.array([[0.7, 0.2, 0.1, 0.0], [0.0, 0.0, 0.0, 1.0]])
    found = model.apply(says, rows_of(2))
    np.testing.assert_allclose(found[1], found[0] @ model.transition)


def test_a_false_alarm_can_end():
    model = fitted()
    says = np.array(
        [[0.98, 0.01, 0.01, 0.0], [0.01, 0.01, 0.98, 0.0], *[[0.98, 0.01, 0.01, 0]] * 4]
    )
    found = model.apply(says, rows_of(6)).argmax(1)
    assert found[-1] == 0


def test_state_comes_back_and_no_window_is_no_fault():
    model = fitted()
    again = PhaseFilter.from_state(model.state())
    says = np.random.default_rng(0).dirichlet(np.ones(4), 5)
    np.testing.assert_array_equal(again.apply(says, rows_of(5)), model.apply(says, rows_of(5)))
    assert model.apply(np.empty((0, 4)), rows_of(5)[:0]).shape == (0, 4)
