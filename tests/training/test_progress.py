import logging
import sys

import pytest

from cis490.errors import ConfigError
from cis490.training.progress import Progress


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def row(epoch, f1=0.5, **changes):
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "train_loss": 0.4312,
        "val_loss": 0.6,
        "val_macro_f1": f1,
        "learning_rate": 0.00098,
        "grad_norm": 2.5,
        "attempt": 1,
        "skipped_steps": 0,
    } | changes


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "cis490")
    return lambda: [record.getMessage() for record in caplog.records]


def made(clock, **changes):
    options = {"seeds": [42, 2025, 7], "epochs": 10} | changes
    return Progress("cnn realistic", clock=clock, **options)


def test_the_line_of_an_epoch_says_how_far_how_well_and_how_fast(clock, lines):
    progress = made(clock)
    progress.started(42, n_windows=5400)
    clock.now = 1.0
    progress.epoch(row(1, 0.8254))
    clock.now = 2.0
    progress.epoch(row(2, 0.8123))
    assert lines()[-1] == (
        "cnn realistic: seed 42 (1 of 3), epoch 2 of 10, loss 0.431, val macro F1 0.812 "
        "(best 0.825), rate 0.00098, 5,400 windows/s, at most 28 s left"
    )


def test_the_time_left_shrinks_with_the_seeds(clock, lines):
    progress = made(clock)
    for seed, left in ((42, "29 s"), (2025, "19 s"), (7, "9.0 s")):
        progress.started(seed, n_windows=100)
        clock.now += 1
        progress.epoch(row(1))
        assert lines()[-1].endswith(f"at most {left} left")
        progress.ended("ok")


def test_a_resumed_training_is_timed_from_where_it_goes_on(clock, lines):
    progress = made(clock, seeds=[7])
    progress.started(7, n_windows=100)
    clock.now = 2.0
    progress.epoch(row(8))
    assert "50 windows/s, at most 4.0 s left" in lines()[-1]


def test_another_attempt_is_named_and_has_a_best_of_its_own(clock, lines):
    progress = made(clock)
    progress.started(2025, n_windows=100)
    progress.epoch(row(1, 0.9))
    progress.epoch(row(1, 0.3, attempt=2))
    assert "seed 2025 (2 of 3), attempt 2, epoch 1" in lines()[-1]
    assert "(best 0.300)" in lines()[-1]


def test_without_val_and_without_gradients_the_line_tells_the_rest(clock, lines):
    progress = made(clock)
    progress.started(42, n_windows=100)
    clock.now = 1.0
    progress.epoch(row(1, None, val_loss=None, learning_rate=None, grad_norm=None))
    assert "loss 0.431, 100 windows/s" in lines()[-1]
    progress.ended("ok")
    assert lines()[-1] == "cnn realistic: seed 42 (1 of 3): ok after epoch 1, 1.0 s"


def test_an_epoch_that_collapsed_may_lack_a_loss(clock, lines):
    progress = made(clock)
    progress.started(42, n_windows=100)
    progress.epoch(row(1, None, train_loss=None, val_loss=None))
    assert "loss unknown" in lines()[-1]


def test_the_end_says_what_became_of_it_and_the_best(clock, lines):
    progress = made(clock)
    progress.started(42, n_windows=100)
    progress.epoch(row(1, 0.7))
    progress.epoch(row(2, 0.6))
    clock.now = 12.0
    progress.ended("failed")
    assert lines()[-1] == (
        "cnn realistic: seed 42 (1 of 3): failed after epoch 2, best val macro F1 0.700, 12 s"
    )


def test_fast_rounds_do_not_fill_the_log_but_the_last_is_told(clock, lines):
    progress = made(clock, epochs=400)
    progress.started(42, n_windows=100)
    for epoch in range(1, 401):
        clock.now += 0.01
        progress.epoch(row(epoch))
    assert len(lines()) == 9  # of 4 s, one each half, and the last
    assert "epoch 400 of 400" in lines()[-1]


def test_tensorboard_is_asked_for_before_anything_is_trained(monkeypatch, tmp_path, clock):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    made(clock)
    with pytest.raises(ConfigError, match=r"pip install 'cis490\[tensorboard\]'"):
        made(clock, tensorboard=tmp_path)


class TestEventFiles:
    @pytest.fixture(autouse=True)
    def _reader(self):
        pytest.importorskip("tensorboard")

    def scalars(self, run):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run)).Reload()
        return {
            tag: [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }

    def train(self, progress, epochs, f1, *, attempt=1, first=1):
        progress.started(42, n_windows=100)
        for epoch in range(first, epochs + 1):
            progress.epoch(row(epoch, f1, attempt=attempt))
        progress.ended("ok")

    def test_they_hold_the_curves_of_each_seed(self, tmp_path, clock):
        self.train(made(clock, tensorboard=tmp_path), 2, 0.5)
        assert self.scalars(tmp_path / "seed_42") == {
            "loss/train": [(1, 0.4312), (2, 0.4312)],
            "loss/val": [(1, 0.6), (2, 0.6)],
            "macro_f1/val": [(1, 0.5), (2, 0.5)],
            "learning_rate": [(1, 0.001), (2, 0.001)],
            "grad_norm": [(1, 2.5), (2, 2.5)],
        }

    def test_a_new_training_replaces_the_old_and_another_attempt_stands_beside(
        self, tmp_path, clock
    ):
        self.train(made(clock, tensorboard=tmp_path), 3, 0.5)
        progress = made(clock, tensorboard=tmp_path)
        self.train(progress, 1, 0.7)
        self.train(progress, 2, 0.9, attempt=2)
        assert self.scalars(tmp_path / "seed_42")["macro_f1/val"] == [(1, 0.7)]
        again = self.scalars(tmp_path / "seed_42_attempt_2")["macro_f1/val"]
        assert again == [(1, 0.9), (2, 0.9)]

    def test_no_attempt_of_an_earlier_training_is_left(self, tmp_path, clock):
        self.train(made(clock, tensorboard=tmp_path), 2, 0.5)
        self.train(made(clock, tensorboard=tmp_path), 2, 0.5, attempt=2)
        self.train(made(clock, tensorboard=tmp_path), 1, 0.7)
        assert [path.parent.name for path in tmp_path.glob("*/events*")] == ["seed_42"]

    def test_a_resumed_training_goes_on_in_the_same_curve(self, tmp_path, clock):
        self.train(made(clock, tensorboard=tmp_path), 3, 0.5)  # killed after its third epoch
        self.train(made(clock, tensorboard=tmp_path), 4, 0.7, first=3)
        expected = [(1, 0.5), (2, 0.5), (3, 0.7), (4, 0.7)]
        assert self.scalars(tmp_path / "seed_42")["macro_f1/val"] == expected
