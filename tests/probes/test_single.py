import numpy as np

from cis490.probes.single import each_channel, over_clock
from tests.probes.world import BOOSTER, ORIGIN, TWO_HOSTS, hide, tell, windows_of


def test_the_channel_that_tells_beats_the_clock_and_noise_does_not():
    parts = [windows_of(part, TWO_HOSTS) for part in ("train", "val", "test")]
    for windows in parts:
        tell(windows, "guest.forks", windows.y)
        hide(windows, "netflow.arp", np.ones(len(windows), bool))
    rows = each_channel(*parts, "test", BOOSTER, ORIGIN)
    alone = {row["key"]: row for row in rows if row["metric"] == "macro_f1"}
    assert len(alone) == 45 + 1  # netflow.arp was never seen; the clock stands beside them
    assert alone["channel/guest.forks"]["estimate"] > 0.7
    assert alone["channel/guest.forks"]["mode"] == "oracle"
    assert alone["channel/proc.wchar"]["mode"] == "realistic"
    assert "channel/netflow.arp" not in alone
    assert over_clock(rows)[0] == "guest.forks"
    lead = next(r for r in rows if r["key"] == "channel/guest.forks" and r["metric"] != "macro_f1")
    gap = alone["channel/guest.forks"]["estimate"] - alone["clock"]["estimate"]
    assert abs(lead["estimate"] - gap) < 1e-12
    assert "channel/netflow.arp" not in alone


def test_leads_that_may_be_chance_are_not_named():
    def lead(key, low, estimate):
        metric = "macro_f1_over_clock"
        return {"key": f"channel/{key}", "metric": metric, "low": low, "estimate": estimate}

    rows = [lead("a", 0.1, 0.2), lead("b", -0.1, 0.9), lead("c", 0.2, 0.3), lead("d", None, 0.4)]
    assert over_clock(rows) == ["c", "a"]
