import json

import pytest

from cis490.episodes.store import read_index
from cis490.errors import StoreError
from tests.builders import Store, record_of
from tests.conftest import SAMPLE_STORE


def text(episode_id, **changes):
    return json.dumps(record_of("alder", episode_id, b"x", **changes))


def ids(store):
    return [record.content["episode_id"] for record in read_index(store.folder).records]


def test_two_records_run_together_on_one_line_are_both_recovered(store):
    store.append_line(text("a") + text("b") + "\n" + text("c") + "\n")
    index = read_index(store.folder)
    assert [r.content["episode_id"] for r in index.records] == ["a", "b", "c"]
    assert [(t.line, t.n_recovered) for t in index.torn] == [(1, 2)]


def test_a_record_cut_short_is_reported_with_line_and_byte_offset_and_costs_no_other(store):
    cut = text("lost")[:50]
    store.append_line(text("a") + "\n" + cut + text("b") + "\n" + text("c") + "\n")
    index = read_index(store.folder)
    assert [r.content["episode_id"] for r in index.records] == ["a", "b", "c"]
    lost = next(t for t in index.torn if not t.n_recovered)
    assert (lost.line, lost.byte_offset, lost.n_bytes) == (2, len(text("a")) + 1, 50)
    assert lost.text == cut


def test_a_record_still_being_written_at_the_end_is_lost_until_it_is_whole(store):
    store.append_line(text("a") + "\n" + text("b")[:-9])
    assert ids(store) == ["a"]
    store.append_line(text("b")[-9:])
    assert ids(store) == ["a", "b"]


@pytest.mark.parametrize("junk", [b"\xff\xfe{", b"[1, 2]", b"null", b'{"a":' * 5000, b"{" * 5000])
def test_junk_in_the_index_is_reported_and_costs_no_record(store, junk):
    good = text("a").encode()
    store.index.write_bytes(
        junk + b"\n" + good + b"\n" + junk + good.replace(b'"a"', b'"b"') + b"\n"
    )
    index = read_index(store.folder)
    assert [r.content["episode_id"] for r in index.records] == ["a", "b"]
    assert [t.line for t in index.torn if not t.n_recovered] == [1, 3]


def test_the_last_complete_record_of_an_episode_wins_and_keeps_its_place(store):
    store.append_line(
        "\n".join([text("a", size_bytes=1), text("b"), text("a", size_bytes=2)]) + "\n"
    )
    index = read_index(store.folder)
    assert [(r.content["episode_id"], r.content["size_bytes"]) for r in index.records] == [
        ("a", 2),
        ("b", 1),
    ]
    assert index.superseded == [(1, "a", 3)]


def test_an_incomplete_record_never_replaces_a_complete_one(store):
    store.append_line(text("a", size_bytes=7) + '\n{"episode_id": "a", "host_id": "alder"}\n')
    (record,) = read_index(store.folder).records
    assert record.content["size_bytes"] == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"host_id": ".."},
        {"host_id": "a/b"},
        {"host_id": "-alder"},
        {"host_id": "a" * 65},
        {"host_id": 7},
        {"episode_id": "../../etc/passwd"},
        {"episode_id": "e\n1"},
        {"path": "../outside.tar.zst"},
        {"path": "alder/../../outside"},
        {"path": "/etc/passwd"},
        {"path": "alder/\0"},
        {"path": None},
    ],
)
def test_an_unsafe_id_or_path_is_a_problem_of_its_record_alone(store, changes):
    record = record_of("alder", "e1", b"x") | changes
    store.append_line(json.dumps(record) + "\n" + text("good") + "\n")
    bad, good = read_index(store.folder).records
    assert bad.problem is not None
    assert good.problem is None


def test_an_empty_store_says_so(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        read_index(tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"cannot read index\.jsonl"):
        read_index(tmp_path)
    with pytest.raises(StoreError, match="empty"):
        read_index(Store(tmp_path).folder)


def test_the_sample_store_has_one_torn_line_and_one_superseded_record():
    index = read_index(SAMPLE_STORE)
    assert len(index.records) == 246
    assert [(t.line, t.n_recovered) for t in index.torn] == [(72, 2)]
    assert index.superseded == [(1, "a643aab2db4187bdfd9f", 6)]
