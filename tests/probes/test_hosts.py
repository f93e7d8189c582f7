import numpy as np
import pytest

from cis490.probes.data import NotMeasurable, columns_at
from cis490.probes.hosts import shown_everywhere, tell_hosts
from tests.probes.world import BOOSTER, ORIGIN, channel, hide, tell, windows_of

HOSTS = {"alder": {"io-walk": 8}, "birch": {"io-walk": 8}, "dogwood": {"io-walk": 8}}


def host_of(windows):
    return (
        windows.frame["host_id"]
        .replace_strict({"alder": 0, "birch": 1, "dogwood": 2}, return_dtype=int)
        .to_numpy()
    )


def test_hosts_that_differ_are_told_apart_and_hosts_alike_as_by_chance():
    windows = windows_of("all", HOSTS)
    apart, chance = tell_hosts(windows, BOOSTER, ORIGIN)
    assert apart["low"] < 0.5
    assert apart["estimate"] < chance["high"]
    tell(windows, "proc.rss_bytes", host_of(windows))
    apart, again = tell_hosts(windows, BOOSTER, ORIGIN)
    assert apart["estimate"] > 0.95
    assert again["estimate"] == pytest.approx(1 / 3, abs=0.05)


def test_a_channel_that_a_host_never_shows_does_not_give_it_away():
    windows = windows_of("all", HOSTS)
    host = host_of(windows)
    hide(windows, "netflow.syn", host == 1)
    hide(windows, "proc.wchar", (host == 1) & (windows.frame["window"] > 0).to_numpy())
    kept = shown_everywhere(windows, host, 3)
    assert not np.isin(columns_at([channel("netflow.syn")]), kept).any()
    assert np.isin(columns_at([channel("proc.wchar")]), kept).all()
    assert not np.isin(columns_at([channel("guest.ctxt")]), kept).any()


def test_one_host_cannot_be_told_from_others():
    windows = windows_of("all", {"alder": {"none": 6}})
    with pytest.raises(NotMeasurable, match="one host"):
        tell_hosts(windows, BOOSTER, ORIGIN)
