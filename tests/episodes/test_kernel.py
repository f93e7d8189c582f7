import json
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from cis490.episodes import kernel
from cis490.episodes.parse import parse
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import _frame

LIMITS = Limits(line_bytes=1000, rows=50)
ROW = {"t_wall_ns": 10**18, "t_mono_ns": 5, "cpu_user": 1, "cpu_sys": 2, "cpu_iowait": 0}
REST = "ctxt intr forks procs_running mem_available_kb mem_dirty_kb pgfault net_tx_bytes"
ROW |= {name: i for i, name in enumerate([*REST.split(), "tcp_active_opens"])}
EXEC = {"t_wall_ns": 10**18, "t_mono_ns": 5, "event": "exec", "pid": 7, "ppid": 1}
EXEC |= {"cmdline": "sh -c 'sleep 1' # {,}: 5"}
FLOW = {"t_wall_ns": 10**18, "t_mono_ns": 5, "proto": "tcp", "src": "10.0.0.1", "sport": 80}
FLOW |= {"dst": "", "dport": 5, "pkts_out": 1, "bytes_out": 2, "pkts_in": 3, "bytes_in": 4}
FLOW |= {"tcp_flags": 0, "new": 1}
LABEL = {"t_wall_ns": 10**18, "t_mono_ns": 5, "phase": "clean"}
TABLES = {"guest": ROW, "exec": EXEC, "netflow": FLOW, "labels": LABEL}
ODD = [
    *(
        b'""',
        b'"\t"',
        b'"\x7f"',
        b'"\xff"',
        b'"\x00"',
        '"é"'.encode(),
        b'"a',
        b'"',
        b'"\\"',
        b'"\\x"',
    ),
    *(rb'"a\"b\\\/\b\f\n\r\t"', rb'"\u00e9"', rb'"\u0000"', rb'"\ud800"', rb'"\\n"', rb'"\\\"'),
    *(b"1.5", b"null", b'"x"', b"true", b"-0", b"01", b"-", b"1e3", b"[1]", b"{}", b""),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808"),
    *(b"-9223372036854775809", b"99999999999999999999999", b" 7 ", b"\t7", b"7\x00"),
]


@pytest.fixture(scope="module", autouse=True)
def compiled():
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler here")
    assert kernel._plain_rows is not None, "install again: pip install --no-deps -e ."


def both(content, limits=LIMITS, table="guest"):
    """What parse gives with the compiled decoder and without; and whether the former took it."""
    row = TABLES[table]
    keys = kernel.Keys(list(row), [key for key, value in row.items() if isinstance(value, str)])
    limited = {"most_rows": limits.rows, "longest_line": limits.line_bytes}
    taken = kernel.plain_rows(content, keys, **limited) is not None
    found = [parse(table, content, limits=limits)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_plain_rows", None)
        found.append(parse(table, content, limits=limits))
    return *found, taken


def assert_same(content, limits=LIMITS, table="guest"):
    (rows, faults), (pure_rows, pure_faults), taken = both(content, limits, table)
    assert faults == pure_faults
    assert (rows is None) == (pure_rows is None)
    if rows is not None:
        assert len(rows) == len(pure_rows)
        assert rows.tuples() == pure_rows.tuples()
        for parts in ([rows], [pure_rows, rows], [rows, rows]):  # as episodes beside each other
            assert_frame_equal(_frame(table, parts), _frame(table, [pure_rows] * len(parts)))
    return taken


def lines(rows, separators=(",", ":")):
    return b"".join(json.dumps(row, separators=separators).encode() + b"\n" for row in rows)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_what_recorders_write_is_taken(separators, table):
    more = {"more": 1, "note": "a text that nobody asked for"}
    rows = [TABLES[table] | {"t_wall_ns": 10**18 + i, **more} for i in range(50)]
    assert assert_same(lines(rows, separators), table=table)
    assert assert_same(lines(rows, separators)[:-1], table=table)
    assert assert_same(b"", table=table)


@pytest.mark.parametrize("table", TABLES)
def test_keys_may_stand_in_another_order_from_line_to_line(table):
    rows = [dict(sorted(TABLES[table].items(), reverse=i % 2 == 0)) for i in range(6)]
    assert assert_same(lines(rows), table=table)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(
    ("table", "key"),
    [
        *(("exec", "pid"), ("exec", "cmdline"), ("exec", "unknown"), ("labels", "t_wall_ns")),
        *(("netflow", "proto"), ("netflow", "src"), ("labels", "phase")),
    ],
)
def test_among_texts_too_a_value_that_is_not_plain_is_judged_as_without_it(table, key, value):
    row = TABLES[table]
    assert_same(lines([row, row | {key: 123123}, row]).replace(b"123123", value), table=table)


@pytest.mark.parametrize("table", ["exec", "netflow", "labels"])
def test_what_lacks_in_a_row_with_texts_is_judged_as_without_it(table):
    row = TABLES[table]
    for lacking in row:
        some = {key: value for key, value in row.items() if key != lacking}
        assert not assert_same(lines([row, some]), table=table)


def test_a_protocol_may_be_a_number_beside_one_that_is_a_text():
    parts = [parse("netflow", lines([FLOW | {"proto": p}]), limits=LIMITS)[0] for p in ("tcp", 47)]
    for some, told in ((parts, ["tcp", "47"]), (parts[::-1], ["47", "tcp"]), (parts[1:], ["47"])):
        assert _frame("netflow", some)["proto"].to_list() == told


def test_texts_are_taken_as_they_were_meant():
    told = ["", "a", " a b ", "}\n", '}, {"x": 1', "\\", "\\n", "tab\t/", "\b\f\r", "~" * 900]
    content = lines([EXEC | {"cmdline": text} for text in told]).replace(b"/", rb"\/")
    assert assert_same(content, table="exec")
    rows, _ = parse("exec", content, limits=LIMITS)
    assert rows.column("cmdline") == told


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
    keys = (("guest", "forks"), ("exec", "pid"), ("netflow", "sport"), ("labels", "t_mono_ns"))
    for table, key in keys:
        text = bytearray(lines([TABLES[table] | {key: value} for value in values]))
        for place, byte in flips:
            text[place % len(text)] = byte
        assert_same(bytes(text), table=table)
        assert_same(bytes(text[: cut % (len(text) + 1)]), table=table)
