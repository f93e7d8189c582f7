import numpy as np
import pytest
import torch

from cis490.models.views import CodedSeries, WindowView
from cis490.training.batches import CLIP, Batches, ScaleJitter, SourceDropout
from cis490.windows.codes import LEAST, MISSING, decode

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def epoch_of(batches, source):
    """(inputs, labels) of each batch of an epoch."""
    return [next(batch.pieces(len(batch))) for batch in batches.shuffled(source)]


def view_of(labels, start, length, **options):
    labels = np.asarray(labels)
    series = np.arange(len(labels), dtype=np.float32)[:, None] / 1000
    return WindowView(series, np.asarray(start, np.int64), length, step_label=labels, **options)


def test_windows_come_with_zero_for_missing_and_their_mask():
    X = np.array([[[1, np.nan], [np.nan, 2]]], np.float32)
    view = WindowView.from_array(X)
    (x, y), *_ = Batches(view, view.series, np.array([1]), CPU).in_order()
    assert x.tolist() == [[[1, 0], [0, 2], [1, 0], [0, 1]]]
    assert y.tolist() == [1]


def test_extreme_values_are_cut_and_infinite_ones_too():
    X = np.array([[[1e30, -1e30, np.inf, 0.5]]], np.float32)
    view = WindowView.from_array(X)
    (x, _), *_ = Batches(view, view.series, None, CPU).in_order()
    assert x[0, 0].tolist() == [CLIP, -CLIP, CLIP, 0.5]
    assert x[0, 1].tolist() == [1, 1, 1, 1]


def test_an_array_and_its_view_are_the_same_windows():
    X = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    view = WindowView.from_array(X)
    assert view.shape == X.shape
    assert np.array_equal(view.to_array(), X)


def test_an_epoch_shows_every_window_once_in_another_order_each_time():
    X = np.arange(10, dtype=np.float32).reshape(10, 1, 1) / 10
    view = WindowView.from_array(X)
    batches = Batches(view, view.series, np.arange(10) % 2, CPU, batch_size=4)
    source = generator()
    epochs = [[x[:, 0, 0] for x, _ in epoch_of(batches, source)] for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [4, 4, 2]
    assert len(batches) == 3
    first, second = (torch.cat(epoch) for epoch in epochs)
    assert sorted(first.tolist()) == sorted(second.tolist()) == X.ravel().tolist()
    assert first.tolist() != second.tolist()


def test_moved_windows_stay_within_half_a_stride_and_their_episode():
    labels = np.zeros(60, np.int64)
    start = np.arange(0, 51, 10)
    low, high = np.zeros(6, np.int64), np.full(6, 50)
    view = view_of(labels, start, 10, jitter=5, low=low, high=high)
    batches = Batches(view, view.series, np.zeros(6, np.int64), CPU)
    moves = torch.stack([batches.moved(generator(seed))[0] for seed in range(200)]) - batches.start
    assert moves[:, 1:5].min() == -5
    assert moves[:, 1:5].max() == 5
    assert set(moves[:, 2].tolist()) == set(range(-5, 6))
    assert moves[:, 0].min() == 0
    assert moves[:, 5].max() == 0


def test_a_moved_window_takes_the_phase_of_most_steps_and_the_later_one_of_a_tie():
    labels = [0, 0, 0, 0, 2, 2, 2, 2, 1, 1]
    view = view_of(labels, [1, 2, 3, 5, 6], 4, jitter=1, low=np.arange(5), high=np.arange(5))
    batches = Batches(view, view.series, np.zeros(5, np.int64), CPU)
    batches.low = batches.high = batches.start  # no room to move
    start, y = batches.moved(generator())
    assert start.tolist() == [1, 2, 3, 5, 6]
    assert y.tolist() == [0, 2, 2, 2, 2]


def test_moved_windows_are_the_values_at_their_new_start():
    labels = np.repeat([0, 1], 30)
    view = view_of(labels, [20], 10, jitter=9, low=np.array([0]), high=np.array([50]))
    batches = Batches(view, view.series, np.array([0]), CPU)
    for seed in range(20):
        ((x, y),) = epoch_of(batches, generator(seed))
        first = round(x[0, 0, 0].item() * 1000)
        assert 11 <= first <= 29
        np.testing.assert_allclose(x[0, 0] * 1000, np.arange(first, first + 10), rtol=1e-4)
        assert y.item() == (first >= 25)


def test_source_dropout_hides_whole_sources_at_their_rates():
    absent = torch.tensor([float("nan"), 7.0, float("nan"), float("nan")])
    chances = {"a": 0.25, "b": 0.5, "z": 1}
    dropout = SourceDropout({"a": [0, 1], "b": [3], "c": []}, chances, absent, CPU)
    x = dropout.hide(torch.zeros(20_000, 4, 2), dropout.draw(20_000, generator()))
    lost_a, lost_b = torch.isnan(x[:, 0, 0]), torch.isnan(x[:, 3, 0])
    assert lost_a.float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert lost_b.float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert (lost_a & lost_b).float().mean().item() == pytest.approx(0.125, abs=0.01)
    assert torch.equal(x[:, 1, 1] == 7, lost_a)
    assert not torch.isnan(x[:, 2]).any()


def test_source_dropout_is_for_training_only():
    X = np.ones((50, 1, 1), np.float32)
    view = WindowView.from_array(X)
    dropout = SourceDropout({"a": [0]}, {"a": 1.0}, torch.tensor([float("nan")]), CPU)
    batches = Batches(view, view.series, np.zeros(50, np.int64), CPU, dropout=dropout)
    assert all(x.sum() == 0 for x, _ in epoch_of(batches, generator()))
    assert all((x == 1).all() for x, _ in batches.in_order())


def coded_view(**options):
    """Windows of two coded episodes of 40 steps, and the same of their values."""
    rng = np.random.default_rng(7)
    codes = rng.integers(LEAST, 32768, (80, 3)).astype(np.int16)
    codes[rng.random(codes.shape) < 0.2] = MISSING
    scale = rng.uniform(1e-5, 4e-5, (2, 3)).astype(np.float32)
    base = np.array([[-1, 0, np.nan], [0.5, -2, 0]], np.float32)
    series = CodedSeries(codes, np.array([0, 40, 80]), scale, base)
    start = np.array([0, 10, 30, 40, 55, 70])
    low, high = np.repeat([0, 40], 3), np.repeat([30, 70], 3)
    labels = np.repeat(np.arange(4, dtype=np.int8), 20)
    options |= {"low": low, "high": high, "step_label": labels}
    of = np.repeat([0, 1], 40)
    values = decode(codes, scale[of], base[of])
    return (WindowView(s, start, 10, **options) for s in (series, values))


@pytest.mark.parametrize("jitter", [0, 5])
def test_coded_windows_are_the_values_that_their_codes_mean(jitter):
    y = np.array([0, 0, 1, 2, 2, 3])
    coded, plain = (
        Batches(view, view.series, y, CPU, batch_size=4) for view in coded_view(jitter=jitter)
    )
    assert coded.series.steps.dtype == torch.int16
    for one, other in (
        (coded.in_order(), plain.in_order()),
        (epoch_of(coded, generator(3)), epoch_of(plain, generator(3))),
    ):
        for (x, y_x), (z, y_z) in zip(one, other, strict=True):
            assert torch.equal(x[:, 3:], z[:, 3:])
            torch.testing.assert_close(x[:, :3], z[:, :3], rtol=0, atol=2e-6)
            assert torch.equal(y_x, y_z)


def test_coded_and_plain_views_cut_the_same_array():
    coded, plain = coded_view()
    np.testing.assert_array_equal(coded.to_array(), plain.to_array())
    assert coded.shape == plain.shape == (6, 3, 10)


def test_pieces_of_a_batch_are_the_batch():
    view, _ = coded_view()
    dropout = SourceDropout({"a": [0]}, {"a": 0.5}, torch.full((3,), torch.nan), CPU)
    batches = Batches(view, view.series, np.arange(6), CPU, batch_size=5, dropout=dropout)
    first, last = batches.shuffled(generator())
    assert (len(first), len(last)) == (5, 1)
    ((whole, y),) = first.pieces(5)
    pieces = list(first.pieces(2))
    assert [len(labels) for _, labels in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([x for x, _ in pieces]), whole)
    assert torch.equal(torch.cat([labels for _, labels in pieces]), y)


def windows_of(epoch):
    """Each window's values and label, sorted, so that epochs can be compared."""
    cases = [pair for xs, ys in epoch for pair in zip(xs, ys, strict=True)]
    return sorted((*x.flatten().tolist(), y.item()) for x, y in cases)


def many_episodes(n=12, steps=40, jitter=5):
    """Coded episodes, each with a window at every tenth step."""
    rng = np.random.default_rng(3)
    codes = rng.integers(LEAST, 32768, (n * steps, 2)).astype(np.int16)
    offset = np.arange(n + 1) * steps
    scale, base = (rng.uniform(1e-5, 2e-5, (n, 2)).astype(np.float32) for _ in range(2))
    within = np.arange(0, steps - 9, 10)
    start = (offset[:-1, None] + within).ravel()
    low, high = np.repeat(offset[:-1], len(within)), np.repeat(offset[1:] - 10, len(within))
    labels = rng.integers(0, 3, n * steps).astype(np.int8)
    series = CodedSeries(codes, offset, scale, base)
    options = {"jitter": jitter, "low": low, "high": high, "step_label": labels}
    return WindowView(series, start, 10, **options)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.01])
def test_a_series_beyond_its_budget_is_visited_in_blocks_and_none_of_it_is_left_out(share):
    view = many_episodes()
    y = np.zeros(len(view), np.int64)
    resident = Batches(view, view.series, y, CPU, batch_size=7)
    budget = int(share * view.series.codes.nbytes)
    blocks = Batches(view, view.series, y, CPU, batch_size=7, budget=budget)
    assert resident.resident
    assert not blocks.resident
    epochs = [epoch_of(blocks, generator(seed)) for seed in (0, 0, 1)]
    assert windows_of(epochs[0]) == windows_of(epoch_of(resident, generator(0)))
    one, again, other = (torch.cat([x for x, _ in epoch]) for epoch in epochs)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    for (x, _), (wanted, _) in zip(blocks.in_order(), resident.in_order(), strict=True):
        assert torch.equal(x, wanted)


def test_blocks_stay_within_a_third_of_the_budget_but_for_one_episode():
    view = many_episodes()
    nbytes = view.series.codes.nbytes
    batches = Batches(view, view.series, None, CPU, batch_size=7, budget=nbytes // 2)
    sizes = {batch.series.steps.nbytes for batch in batches.shuffled(generator())}
    assert len({id(batch.series) for batch in batches.shuffled(generator())}) >= 4
    assert max(sizes) <= nbytes // 6 + nbytes // 12


def test_features_beyond_their_budget_are_visited_in_blocks_too():
    X = np.arange(40, dtype=np.float32).reshape(40, 1, 1) / 40
    view = WindowView.from_array(X)
    batches = Batches(view, view.series, np.arange(40), CPU, batch_size=8, budget=60)
    epoch = epoch_of(batches, generator())
    assert sorted(torch.cat([x[:, 0, 0] for x, _ in epoch]).tolist()) == X.ravel().tolist()
    for x, y in epoch:
        assert (x[:, 0, 0] * 40).round().long().tolist() == y.tolist()


def test_balanced_batches_draw_classes_evenly_and_cases_of_a_class_evenly():
    y = np.array([0] * 90 + [2] * 9 + [5])
    X = np.arange(100, dtype=np.float32).reshape(100, 1, 1) / 100
    view = WindowView.from_array(X)
    batches = Batches(view, view.series, y, CPU, batch_size=100, balanced=True)
    source = generator()
    drawn = [epoch_of(batches, source)[0] for _ in range(300)]
    labels = torch.cat([labels for _, labels in drawn])
    share = torch.bincount(labels).float() / len(labels)
    assert share[[0, 2, 5]].tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    cases = (torch.cat([x[:, 0, 0] for x, _ in drawn]) * 100).round().long()
    assert (torch.from_numpy(y)[cases] == labels).all()
    assert (torch.bincount(cases[labels == 0], minlength=90) > 60).all()


def test_an_epoch_is_the_same_however_far_the_one_before_was_followed():
    view = many_episodes()
    batches = Batches(view, view.series, None, CPU, batch_size=7)
    whole, broken = generator(), generator()
    epoch_of(batches, whole)
    next(batches.shuffled(broken))
    one, other = epoch_of(batches, whole), epoch_of(batches, broken)
    assert all(torch.equal(x, z) for (x, _), (z, _) in zip(one, other, strict=True))


def test_a_block_of_which_no_case_is_drawn_makes_no_batch():
    view = many_episodes(jitter=0)
    y = np.zeros(len(view), np.int64)
    y[:2], y[40:] = 1, 2
    options = {"batch_size": 7, "balanced": True, "budget": view.series.codes.nbytes // 20}
    batches = Batches(view, view.series, y, CPU, **options)
    drawn = [[len(batch) for batch in batches.shuffled(generator(seed))] for seed in range(9)]
    assert all(min(sizes) > 0 and sum(sizes) == len(view) for sizes in drawn)


def test_overlapping_windows_of_a_plain_series_stay_whole_in_blocks():
    """Ten steps a window and six windows, as if they stood side by side."""
    view = WindowView(np.arange(60, dtype="f4")[:, None] / 60, np.array([0, 5, 11, 17, 30, 50]), 10)
    y = np.arange(6)
    resident, blocks = (
        Batches(view, view.series, y, CPU, batch_size=8, budget=budget) for budget in (None, 80)
    )
    assert not blocks.resident
    epochs = [windows_of(epoch_of(batches, generator())) for batches in (resident, blocks)]
    assert epochs[0] == epochs[1]


@pytest.mark.parametrize("jitter", [0, 5])
def test_a_case_loses_the_same_sources_and_moves_the_same_way_in_blocks(jitter):
    view = many_episodes(jitter=jitter)
    groups, chances = {"a": [0], "b": [1]}, {"a": 0.5, "b": 0.3}
    dropout = SourceDropout(groups, chances, torch.full((2,), torch.nan), CPU)
    y = np.zeros(len(view), np.int64)
    resident, blocks = (
        Batches(view, view.series, y, CPU, batch_size=7, dropout=dropout, budget=budget)
        for budget in (None, view.series.codes.nbytes // 4)
    )
    epochs = [windows_of(epoch_of(batches, generator())) for batches in (resident, blocks)]
    assert epochs[0] == epochs[1]


def scaled(deviation, *, channel=(0, 0, 1), mean=(2.0, 2.0, 0.5, 0.0)):
    """Four columns: two of a channel, one of another, and one that has no scale."""
    spread = np.array([0.5, 2.0, 1.0, 1.0], np.float32)
    mean = np.array(mean, np.float32)
    where = np.arange(3), np.array(channel)
    return ScaleJitter(where, deviation, (mean, spread), CPU), mean, spread


def test_a_scale_is_a_factor_of_amounts_beyond_one_and_nothing_stays_nothing():
    jitter, mean, spread = scaled(0.3)
    amounts = np.array([[0.0, 50.0, 3000.0]] * 4, np.float32)
    x = torch.from_numpy((np.log1p(amounts) - mean[:, None]) / spread[:, None])[None]
    drawn = torch.tensor([[0.4, -0.7]])
    moved = np.expm1(jitter.move(x, drawn)[0].numpy() * spread[:, None] + mean[:, None])
    for row, factor in zip(moved, np.exp([0.4, 0.4, -0.7, 0.0]), strict=True):
        np.testing.assert_allclose(row[1:], amounts[0, 1:] * factor, rtol=0.03)
        assert abs(row[0]) < 1e-6


def test_missing_values_stay_missing_whatever_their_scale():
    jitter, *_ = scaled(0.3)
    x = torch.full((2, 4, 5), torch.nan)
    assert jitter.move(x, torch.ones(2, 2)).isnan().all()


def test_scales_are_drawn_anew_for_each_case_and_not_without_a_deviation():
    jitter, *_ = scaled(0.3)
    drawn = jitter.draw(4000, generator())
    assert drawn.shape == (4000, 2)
    assert drawn.std(0).tolist() == pytest.approx([0.3, 0.3], rel=0.05)
    none, *_ = scaled(0.0)
    source = generator()
    before = source.get_state()
    x = torch.randn(3, 4, 5)
    assert none.move(x, none.draw(3, source)) is x
    assert torch.equal(source.get_state(), before)


def test_scales_are_for_training_only_and_come_with_their_cases():
    X = np.full((6, 4, 2), 1.0, np.float32)
    jitter, *_ = scaled(0.3)
    view = WindowView.from_array(X)
    batches = Batches(view, view.series, np.arange(6), CPU, batch_size=4, scaling=jitter)
    (x, _), *_ = batches.in_order()
    assert (x[:, :4] == 1).all()
    for batch in batches.shuffled(generator()):
        (whole, _), pieces = next(batch.pieces(4)), list(batch.pieces(1))
        assert torch.equal(torch.cat([x for x, _ in pieces]), whole)
        assert (whole[:, :3] != 1).all()
        assert (whole[:, 3] == 1).all()
        assert len(set(whole[:, 0, 0].tolist())) == len(batch)
