import pytest

from cis490.words import about, count, duration, memory


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(49, "under a minute"), (50, "1 min"), (3500, "58 min"), (7600, "2 h 10 min")],
)
def test_an_estimate_is_told_no_finer_than_it_is(seconds, text):
    assert about(seconds) == text


def test_counts_and_sizes():
    assert [count(n, "job") for n in (0, 1, 1200)] == ["0 jobs", "1 job", "1,200 jobs"]
    assert [memory(n * 2**20) for n in (412, 1640)] == ["412 MiB", "1.6 GiB"]
