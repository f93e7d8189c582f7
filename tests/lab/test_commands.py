import pytest

from cis490.lab import commands
from cis490.lab.commands import Commands, Event, shape_of

S = 1_000_000_000
SHARES = {"io-walk": 0.1, "cpu-saturate": 0.1, "fork-churn": 0.1}


@pytest.mark.parametrize(
    ("cmdline", "shape"),
    [
        ("sleep 5", "sleep #"),
        ("sleep 0.25", "sleep #.#"),
        ("sh /run/j/3fa9c1b2 5", "sh /run/j/#"),
        ("/bin/dd if=/dev/vda bs=4k count=9 iflag=direct", "dd if=/dev/vda"),
        ("nc -w 3 10.77.0.101 9001", "nc -w #"),
        ("cat /mnt/tree/d10/f4", "cat /mnt/tree/d#/f#"),
        ("[kworker/0:1]", "#:#]"),
        ("", ""),
    ],
)
def test_a_shape_keeps_name_options_and_first_argument_without_numbers(cmdline, shape):
    assert shape_of(cmdline) == shape


def seen(n, infected, clean=(), profile="io-walk"):
    """n episodes of one profile, onset at 10 s, with such commands after and before it."""
    found = Commands()
    for _ in range(n):
        events = [Event(2 * S, each) for each in clean] + [Event(20 * S, c) for c in infected]
        found.add(events, profile, 10 * S)
    return found


def exclusive(found, least=5, p=0.01):
    return [shape.shape for shape in found.exclusive(SHARES, least=least, p=p)]


def test_a_shape_seen_in_clean_time_of_any_episode_is_of_nobody():
    found = seen(20, ["sleep 0.5", "sleep 2"])
    assert exclusive(found) == ["sleep #", "sleep #.#"]
    found.add([Event(5 * S, "sleep 0.1")], "none", None)
    assert exclusive(found) == ["sleep #"]


def test_what_comes_shortly_before_the_onset_counts_for_neither_side():
    found = seen(20, ["sleep 0.5"])
    found.add([Event(9_500_000_000, "sleep 0.5")], "io-walk", 10 * S)
    assert exclusive(found) == ["sleep #.#"]
    found.add([Event(8_900_000_000, "sleep 0.5")], "io-walk", 10 * S)
    assert exclusive(found) == []


def test_many_profiles_need_more_episodes_than_one_for_the_same_proof():
    assert exclusive(seen(5, ["x 1"])) == ["x #"]
    mixed = Commands()
    for i in range(5):
        mixed.add([Event(20 * S, "x 1")], list(SHARES)[i % 3], 10 * S)
    (shape,) = mixed.exclusive(SHARES, least=5, p=0.01)
    assert shape.p == pytest.approx(0.3**5)
    assert shape.profiles == sorted(SHARES)
    assert shape.p > seen(5, ["x 1"]).exclusive(SHARES, least=5, p=1.0)[0].p


def test_words_of_labels_are_found_by_themselves_in_any_spelling():
    found = Commands()
    for cmdline in (
        "sh /tmp/Miner-A.sh",
        "env PHASE=infected_running x",
        "cpu_saturate --fast",
        "cleaner unarmed scanning /run/j/3fa9c1b2",
    ):
        found.add([Event(0, cmdline)], "none", None)
    labels = {"miner-a", "infected_running", "cpu-saturate", "clean", "armed", "scan-a", "churn-b"}
    words = found.label_words(labels)
    assert set(words) == {"miner-a", "miner", "infected-running", "cpu-saturate"}
    assert words["miner"] == "sh /tmp/Miner-A.sh"


def test_memory_is_bounded_and_what_is_frequent_stays(monkeypatch):
    monkeypatch.setattr(commands, "_MOST", 100)
    found = Commands()
    for i in range(300):
        name = "".join(chr(ord("g") + int(digit)) for digit in str(i))
        found.add([Event(20 * S, "sleep 0.5"), Event(20 * S, name)], "io-walk", 10 * S)
    assert len(found._shapes) <= 101
    assert len(found._words) <= 102
    assert exclusive(found) == ["sleep #.#"]
