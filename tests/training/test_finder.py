import json
import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cis490 import files
from cis490.training.finder import (
    KEY_PARTS,
    Curve,
    FinderError,
    RateCache,
    key_of,
    range_test,
    smoothed,
    suggest,
)
from cis490.training.schedule import learning_rate_factor
from tests.training.rates import RATES, best_rates, brute_force, make_problem, study

logger = logging.getLogger("cis490")

PARTS = {name: f"some {name}" for name in KEY_PARTS}
KEY = key_of(PARTS)
CURVE = Curve(np.geomspace(1e-5, 1, 4), np.array([1.0, 0.5, math.inf, math.nan]))
SHAPES = (
    "smooth",
    "noisy",
    "divergent",
    "plateau then drop",
    "early minimum",
    "late minimum",
    "heavy tails",
    "nan in the middle",
    "nan at the end",
)


def drawn(shape: str, rng: np.random.Generator, n: int = 100) -> tuple[Curve, int]:
    """A curve with an answer, and the place of its least loss without noise."""
    least = {"early minimum": 35, "late minimum": 95}.get(shape, int(rng.integers(50, 85)))
    width = 4 if shape == "plateau then drop" else int(rng.integers(10, 25))
    place = np.arange(n)
    fall = np.clip((place - least + width) / width, 0, 1)
    losses = 2 - rng.uniform(0.5, 1.8) * fall * fall * (3 - 2 * fall)
    rise = np.maximum(0, place - least)
    losses += np.minimum(rise * 0.05, 1) if shape != "divergent" else np.expm1(rise * 0.2)
    noise = {"smooth": 0.0, "noisy": 0.15, "heavy tails": 0.03}.get(shape, 0.05)
    losses += noise * (rng.standard_t(2, n) if shape == "heavy tails" else rng.normal(size=n))
    if shape == "nan in the middle":
        losses[rng.integers(20, least, 3)] = rng.choice([np.nan, np.inf, -np.inf], 3)
    if shape == "nan at the end":
        losses[least + 5 :] = np.nan
    return Curve(np.geomspace(1e-5, 10, n), losses), least


def without_answer(shape: str, rng: np.random.Generator, n: int = 100) -> Curve:
    losses = 2 + 0.1 * rng.normal(size=n)
    if shape == "rising":
        losses += np.linspace(0, 2, n)
    if shape == "divergent":
        losses += np.expm1(np.maximum(0, np.arange(n) - 60) * 0.2)
    if shape == "equal":
        losses = np.full(n, 2.0)
    if shape == "nan from the start":
        losses[:] = np.nan
    if shape == "nan after a few":
        losses[5:] = np.nan
    return Curve(np.geomspace(1e-5, 10, n), losses)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_curve_with_an_answer_gets_one_before_its_minimum(shape):
    """20 of each shape, 180 in all."""
    for seed in range(20):
        curve, least = drawn(shape, np.random.default_rng(seed))
        found = suggest(curve)
        assert found is not None, seed
        finite = np.isfinite(curve.losses)
        assert found < curve.rates[finite][smoothed(curve.losses[finite]).argmin()]
        # The smoothed minimum lags behind: up to 19 iterations, a factor of 14.
        assert curve.rates[least] / 30 < found < curve.rates[least] * 5, seed


@pytest.mark.parametrize(
    "shape", ["flat", "equal", "rising", "divergent", "nan from the start", "nan after a few"]
)
def test_a_curve_without_an_answer_gets_none(shape):
    for seed in range(20):
        assert suggest(without_answer(shape, np.random.default_rng(seed))) is None, seed


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_curve_too_short_gets_none(n):
    assert suggest(Curve(np.geomspace(1e-5, 1, 100)[:n], np.linspace(2, 1, n))) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_the_scale_and_the_offset_of_the_loss_do_not_matter(shape):
    for seed in range(5):
        curve, _ = drawn(shape, np.random.default_rng(seed))
        for scale, offset in ((1000, 0), (0.01, 0), (1, 50), (1, -50), (7, 3)):
            other = Curve(curve.rates, curve.losses * scale + offset)
            assert suggest(other) == suggest(curve)


def test_what_comes_after_the_minimum_does_not_matter():
    for seed in range(20):
        curve, _ = drawn("smooth", np.random.default_rng(seed))
        end = smoothed(curve.losses).argmin() + 1
        for after in (np.nan, np.inf, 1e30, 3.0):
            losses = curve.losses.copy()
            losses[end:] = after
            assert suggest(Curve(curve.rates, losses)) == suggest(curve)
        assert suggest(Curve(curve.rates[:end], curve.losses[:end])) == suggest(curve)


def test_smoothing_is_corrected_for_its_start():
    np.testing.assert_allclose(smoothed([3.0] * 50), 3)
    ramp = smoothed(np.arange(500.0))
    assert ramp[0] == 0
    assert (np.diff(ramp) > 0).all()
    assert 0 < 499 - ramp[-1] < 50  # it lags by a constant


def test_trying_all_rates_trains_as_the_loop_does():
    problem = make_problem(3)  # a net of many layers, batches of 64 and more
    rates, steps = np.array([1e-3, 3e-2]), 10
    together = brute_force(problem, rates, seeds=2, steps=steps)
    for seed in range(2):
        for i, rate in enumerate(rates):
            net = problem.net(seed)
            optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
            for step, rows in enumerate(problem.rows(seed, steps)):
                for group in optimizer.param_groups:
                    group["lr"] = rate * learning_rate_factor(step, steps)
                optimizer.zero_grad()
                F.cross_entropy(net(problem.X[rows]), problem.y[rows]).backward()
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
            alone = F.cross_entropy(net(problem.X), problem.y).item()
            assert together[seed, i] == pytest.approx(alone, rel=1e-4)


def test_rates_as_good_as_the_best_end_where_more_is_lost_than_noise_or_2_percent():
    mean = np.full(len(RATES), 1.0)
    mean[4:8] = 0.1, 0.109, 0.127, 0.5  # 2% of 1 - 0.1 is 0.018
    strict, low, high = best_rates(np.stack([mean, mean]), chance=1.0)
    assert strict == RATES[4]
    assert low == pytest.approx(RATES[4] / 2**0.02)
    assert high == pytest.approx(RATES[5] * 2**0.5)
    noisy = np.stack([mean - 0.05, mean + 0.05])  # a standard deviation of 0.07
    assert best_rates(noisy, chance=1.0)[2] > RATES[6]


@pytest.fixture
def numbers(request):
    """200 problems take ten minutes; CI sees some of those that are quick to try all rates on."""
    if request.config.getoption("--long"):
        return range(200)
    return [number for number in range(200) if make_problem(number).batch_size == 16][:6]


def test_the_suggestion_is_within_a_factor_of_3_of_a_rate_as_good_as_the_best(numbers):
    off = study(make_problem(number) for number in numbers)
    hits = {name: (np.abs(rows) <= np.log(3)) for name, rows in off.items()}
    for name, rows in hits.items():
        shares = *rows.mean(0), len(rows)
        logger.info("%s: nearest %.3f, centre %.3f, least %.3f (n=%d)", name, *shares)
    missed = {name: (~rows[:, 0]).sum() for name, rows in hits.items()}
    assert missed["the finder"] <= max(1, 0.05 * len(numbers))
    assert missed["the finder"] <= min(missed.values())


def test_a_range_test_raises_the_rate_geometrically():
    asked = []
    curve = range_test(lambda rate: asked.append(rate) or 1.0, iterations=7, low=1e-4, high=1e2)
    np.testing.assert_allclose(asked, 10.0 ** np.arange(-4, 3))
    np.testing.assert_array_equal(curve.rates, asked)
    np.testing.assert_array_equal(curve.losses, np.ones(7))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_range_test_ends_at_a_loss_that_is_not_finite(broken):
    losses = iter([2.0, 1.0, broken])
    curve = range_test(lambda _: next(losses))
    np.testing.assert_array_equal(curve.losses, [2.0, 1.0, broken])
    assert len(curve.rates) == 3


def test_a_range_test_ends_when_the_smoothed_loss_has_diverged():
    losses = iter([2.0] * 50 + [100.0] * 50)
    curve = range_test(lambda _: next(losses))
    assert 50 < len(curve.losses) < 60


def test_one_bad_batch_does_not_end_a_range_test():
    losses = iter([2.0] * 50 + [20.0] + [2.0] * 49)
    assert len(range_test(lambda _: next(losses)).losses) == 100


@pytest.mark.parametrize(
    "wrong", [{"iterations": 1}, {"low": 0.0}, {"low": 2.0, "high": 1.0}, {"high": math.inf}]
)
def test_a_range_that_does_not_rise_is_refused(wrong):
    with pytest.raises(FinderError, match="0 < low < high"):
        range_test(lambda _: 1.0, **wrong)


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(tmp_path, clock):
    return RateCache(tmp_path / "rates", 168, clock=clock)


@pytest.fixture
def kept(cache):
    """The file of an entry that is in order."""
    cache.put(KEY, 0.00123456789, CURVE, PARTS)
    (path,) = cache.folder.iterdir()
    assert cache.get(KEY) is not None
    return path


@pytest.mark.usefixtures("kept")
def test_what_was_kept_comes_back_to_the_bit(cache):
    found = RateCache(cache.folder, 168, clock=cache.clock).get(KEY)
    assert found.rate == 0.00123456789
    assert found.of == PARTS
    assert found.written.timestamp() == 1_700_000_000
    np.testing.assert_array_equal(found.curve.rates, CURVE.rates)
    np.testing.assert_array_equal(found.curve.losses, [1.0, 0.5, np.nan, np.nan])


def test_an_entry_is_strict_json_that_a_person_can_read(kept, caplog):
    def refuse(text):
        raise AssertionError(text)

    content = json.loads(kept.read_text(), parse_constant=refuse)
    assert content["learning_rate"] == 0.00123456789
    assert content["of"] == PARTS
    assert content["written"] == "2023-11-14T22:13:20+00:00"
    assert content["losses"] == [1.0, 0.5, None, None]
    assert not caplog.records  # a loss that is not finite is no fault here


@pytest.mark.usefixtures("kept")
def test_an_entry_lives_as_long_as_it_was_said_to(cache, clock):
    start = clock.now
    for hours, there in ((167.99, True), (168.01, False), (-0.01, False)):
        clock.now = start + hours * 3600
        assert (cache.get(KEY) is not None) is there
    assert RateCache(cache.folder, 0, clock=clock).get(KEY) is None


def test_a_file_or_folder_removed_by_hand_is_a_miss(cache, kept):
    kept.unlink()
    assert cache.get(KEY) is None
    kept.parent.rmdir()
    assert cache.get(KEY) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.00123456789", "-1"),
        ("0.00123456789", "NaN"),
        ("0.00123456789", "null"),
        ("0.00123456789", "1" + "0" * 400),
        ('"version": 1', '"version": 2'),
        ("cis490.learning_rate", "cis490.model"),
        (KEY, "0" * 64),
        ("2023-11-14", "yesterday"),
        ("+00:00", ""),
        ('"losses": [', '"losses": [1,'),
        ('"losses"', '"loses"'),
        ('"rates": [', '"rates": ["high",'),
    ],
)
def test_a_damaged_or_foreign_entry_is_a_miss_and_said_in_the_log(cache, kept, old, new, caplog):
    assert old in kept.read_text()
    kept.write_text(kept.read_text().replace(old, new))
    with caplog.at_level(logging.WARNING, "cis490"):
        assert cache.get(KEY) is None
    assert str(kept) in caplog.text
    cache.put(KEY, 0.5, CURVE, PARTS)
    assert cache.get(KEY).rate == 0.5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe\x00"])
def test_what_is_no_entry_at_all_is_a_miss_too(cache, kept, content):
    kept.write_bytes(content)
    assert cache.get(KEY) is None


def test_a_folder_where_a_file_should_be_is_a_miss(cache, kept):
    kept.unlink()
    kept.mkdir()
    assert cache.get(KEY) is None


@pytest.mark.parametrize("rate", [None, math.nan, math.inf, 0.0, -1.0])
def test_no_suggestion_is_never_kept(cache, rate):
    with pytest.raises(FinderError, match="no suggestion"):
        cache.put(KEY, rate, CURVE, PARTS)
    assert cache.get(KEY) is None
    assert not cache.folder.exists()


@pytest.mark.usefixtures("kept")
def test_a_writer_that_is_killed_leaves_the_old_entry(cache, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        cache.put(KEY, 0.5, CURVE, PARTS)
    assert cache.get(KEY).rate == 0.00123456789


@pytest.mark.parametrize("key", ["", "../" * 3 + "x", "A" * 64, KEY[:-1]])
def test_a_key_that_is_no_key_is_refused(cache, key):
    with pytest.raises(FinderError, match="key_of"):
        cache.get(key)
    with pytest.raises(FinderError, match="key_of"):
        cache.put(key, 0.1, CURVE, PARTS)


@pytest.mark.parametrize("hours", [-1, math.nan])
def test_hours_that_make_no_sense_are_refused(tmp_path, hours):
    with pytest.raises(FinderError, match="hours"):
        RateCache(tmp_path, hours)


def test_the_key_changes_with_each_part_and_not_with_their_order():
    assert key_of(dict(reversed(PARTS.items()))) == KEY
    others = [key_of(PARTS | {name: "another"}) for name in KEY_PARTS]
    assert len({KEY, *others}) == len(KEY_PARTS) + 1


@pytest.mark.parametrize("name", KEY_PARTS)
def test_a_key_needs_all_its_parts(name):
    with pytest.raises(FinderError, match=f"lacks {name}"):
        key_of({part: value for part, value in PARTS.items() if part != name})
