"""When a step is recorded and when it is not; tests/training/test_card.py has what comes of it."""

from types import SimpleNamespace

import pytest
import torch

from cis490.errors import ConfigError
from cis490.training import graphs
from cis490.training.graphs import Graphs


class Recording:
    """As the real one: `work` is called once, then only played."""

    made = 0

    def __init__(self, work, batch, pool):
        Recording.made += 1
        self.size, self.pool = work(batch), pool

    def play(self, batch):
        assert len(batch) == self.size
        return "played"


class Batch(list):
    def __init__(self, size, series):
        super().__init__(range(size))
        self.series = series


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(Recording, "made", 0)
    monkeypatch.setattr(graphs, "_Recording", Recording)
    cuda = SimpleNamespace(graph_pool_handle=lambda: object())
    monkeypatch.setattr(graphs.torch, "cuda", cuda)


def test_the_first_batch_of_a_size_is_the_callers_the_second_is_recorded():
    steps, series = Graphs(), object()
    sizes = [8, 8, 8, 5, 8, 5, 5]
    made = [steps.step(Batch(size, series), len) for size in sizes]
    assert made == [None, "played", "played", None, "played", "played", "played"]
    assert Recording.made == 2


def test_another_series_and_forgetting_begin_anew():
    steps, one, other = Graphs(), object(), object()
    assert [steps.step(Batch(8, one), len) for _ in range(2)] == [None, "played"]
    assert [steps.step(Batch(8, other), len) for _ in range(2)] == [None, "played"]
    steps.forget()
    assert [steps.step(Batch(8, other), len) for _ in range(2)] == [None, "played"]
    assert Recording.made == 3


def test_what_cannot_be_recorded_says_which_setting_helps():
    def work(_):
        raise torch.OutOfMemoryError("no room")

    steps, series = Graphs(), object()
    assert steps.step(Batch(8, series), work) is None
    with pytest.raises(ConfigError, match=r"training\.graphs to false: no room"):
        steps.step(Batch(8, series), work)
