import json
import shutil

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cis490.episodes import kernel
from cis490.episodes.parse import parse
from cis490.episodes.tarball import Limits

LIMITS = Limits(line_bytes=1000, rows=50)
ROW = {"t_wall_ns": 10**18, "t_mono_ns": 5, "cpu_user": 1, "cpu_sys": 2, "cpu_iowait": 0}
REST = "ctxt intr forks procs_running mem_available_kb mem_dirty_kb pgfault net_tx_bytes"
ROW |= {name: i for i, name in enumerate([*REST.split(), "tcp_active_opens"])}
ODD = [
    *(b"1.5", b"null", b'"x"', b"true", b"-0", b"01", b"-", b"1e3", b"[1]", b"{}", b""),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808"),
    *(b"-9223372036854775809", b"99999999999999999999999", b" 7 ", b"\t7", b"7\x00"),
]


@pytest.fixture(scope="module", autouse=True)
def compiled():
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler here")
    assert kernel._whole_rows is not None, "install again: pip install --no-deps -e ."


def both(content, limits=LIMITS):
    """What parse gives with the compiled decoder and without; and whether the former took it."""
    keys = kernel.Keys(list(ROW))
    limited = {"most_rows": limits.rows, "longest_line": limits.line_bytes}
    taken = kernel.whole_rows(content, keys, **limited) is not None
    found = [parse("guest", content, limits=limits)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_whole_rows", None)
        found.append(parse("guest", content, limits=limits))
    return *found, taken


def assert_same(content, limits=LIMITS):
    (rows, faults), (pure_rows, pure_faults), taken = both(content, limits)
    assert faults == pure_faults
    assert (rows is None) == (pure_rows is None)
    if rows is not None:
        assert np.array_equal(np.array(rows.values, object), np.array(pure_rows.values, object))
    return taken


def lines(rows, separators=(",", ":")):
    return b"".join(json.dumps(row, separators=separators).encode() + b"\n" for row in rows)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_what_recorders_write_is_taken(separators):
    rows = [ROW | {"t_wall_ns": 10**18 + i, "more": i} for i in range(50)]
    assert assert_same(lines(rows, separators))
    assert assert_same(lines(rows, separators)[:-1])
    assert assert_same(b"")


def test_keys_may_stand_in_another_order_from_line_to_line():
    rows = [dict(sorted(ROW.items(), reverse=i % 2 == 0)) for i in range(6)]
    assert assert_same(lines(rows))


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("key", ["t_wall_ns", "t_mono_ns", "ctxt", "unknown"])
def test_a_value_that_is_not_plain_is_judged_as_without_the_compiled_decoder(key, value):
    text = lines([ROW, ROW | {key: 123123}, ROW]).replace(b"123123", value)
    assert_same(text)


@pytest.mark.parametrize(
    "text",
    [
        lines([ROW]).replace(b'"ctxt"', b'"cpu_sys"'),  # one twice, one not at all
        lines([ROW]).replace(b'"ctxt"', rb'"ct\u0078t"'),
        lines([ROW]).replace(b'"ctxt"', b'"ct\xff"'),
        lines([ROW]) + b"\n" + lines([ROW]),
        lines([ROW]).strip() + b" " + lines([ROW]),
        lines([ROW]).replace(b"\n", b"\r\n"),
        lines([ROW]).replace(b",", b",\n", 1),
        lines([ROW | {f"k{i}": i for i in range(60)}]),
        lines([ROW | {"x" * 2000: 1}]),
        lines([ROW] * 51),
        b"\xef\xbb\xbf" + lines([ROW]),
    ],
)
def test_a_line_that_is_not_plain_is_judged_as_without_the_compiled_decoder(text):
    assert not assert_same(text)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=2),
    st.integers(0, 10**4),
)
@example([2**63 - 1], [], 0)
@example([-(2**63)], [], 0)
def test_changed_bytes_and_cuts_make_no_difference_between_the_two(values, flips, cut):
    text = bytearray(lines([ROW | {"forks": value} for value in values]))
    for place, byte in flips:
        text[place % len(text)] = byte
    assert_same(bytes(text))
    assert_same(bytes(text[: cut % (len(text) + 1)]))
