"""Each row of the table in docs/episodes.md, "Validation", broken on purpose."""

import io
import json
import os
import tarfile
import time

import pytest
import zstandard

from cis490.episodes.plan import read_store
from cis490.episodes.tarball import Limits
from cis490.episodes.validate import Entry, examine
from tests.builders import START, Store, members_of, pack, tar_of

DEFAULT_LIMITS = Limits()


def judge(store: Store, limits: Limits = DEFAULT_LIMITS):
    manifests, _ = read_store(
        {"store": store.folder, "store_pin": None, "batch": {"episodes": 9, "packed_bytes": 10**9}}
    )
    (entry,) = (Entry.from_manifest(e) for m in manifests for e in m["episodes"])
    return examine(entry, store.folder, limits)


def codes(verdict):
    return {fault.code for fault in verdict.faults}


def edit_meta(**changes):
    def change(members):
        meta = json.loads(members["meta.json"]) | changes
        meta = {key: value for key, value in meta.items() if value is not ...}
        members["meta.json"] = json.dumps(meta).encode()

    return change


def edit_line(member, number, text):
    """Replace one line (from 1) of a member."""

    def change(members):
        rows = members[member].split(b"\n")
        rows[number - 1] = text if isinstance(text, bytes) else text(rows[number - 1])
        members[member] = b"\n".join(rows)

    return change


def field(name, raw):
    """Give a field of a row another JSON value, or take it away."""

    def change(line):
        row = json.loads(line)
        row.pop(name)
        rest = json.dumps(row).encode()[:-1]
        return rest + b"}" if raw is None else rest + f', "{name}": {raw}}}'.encode()

    return change


def put(**members_by_name):
    return lambda members: members.update(
        {name.replace("_", "."): content for name, content in members_by_name.items()}
    )


def head(name, n):
    """Keep only the first n lines of a member."""

    def change(members):
        members[name] = b"".join(members[name].splitlines(keepends=True)[:n])

    return change


def drop(name):
    return lambda members: members.pop(name)


def labels(*pairs):
    rows = [{"t_wall_ns": START + int(t * 1e9), "t_mono_ns": 0, "phase": p} for t, p in pairs]
    return put(labels_jsonl=b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def test_a_whole_episode_is_accepted_and_without_netflow_degraded(store):
    store.add()
    verdict, episode = judge(store)
    assert (verdict.status, verdict.faults) == ("accepted", [])
    assert verdict.rows == {"proc": 200, "qmp": 40, "guest": 20, "netflow": 30}
    assert episode.tables["proc"].column("utime_ticks")[:3] == [1000, 1001, 1002]
    store.index.write_text("")
    store.add(netflow=False)
    verdict, episode = judge(store)
    assert (verdict.status, codes(verdict)) == ("degraded", {"no_netflow"})
    assert verdict.rows.get("netflow") is None
    assert episode is not None


REJECTED = {
    "no meta": (drop("meta.json"), "no_meta"),
    "no labels": (drop("labels.jsonl"), "no_labels"),
    "no proc": (drop("proc.jsonl"), "no_proc"),
    "no qmp": (drop("qmp.jsonl"), "no_qmp"),
    "no guest": (drop("guest.jsonl"), "no_guest"),
    "not utf-8": (
        edit_line("proc.jsonl", 3, b'{"t_wall_ns":1,"t_mono_ns":1,"x":"\xff"}'),
        "not_utf8",
    ),
    "not json": (edit_line("proc.jsonl", 3, b'{"t_wall_ns": 1'), "not_json"),
    "two records on a line": (edit_line("qmp.jsonl", 3, lambda line: line + line), "not_json"),
    "two on a line and none on the next": (
        lambda m: m.update({"qmp.jsonl": m["qmp.jsonl"].replace(b"}\n{", b"}{", 1) + b"\n"}),
        "not_json",
    ),
    "an object over two lines": (
        edit_line("qmp.jsonl", 3, lambda line: line.replace(b", ", b",\n", 1)),
        "not_json",
    ),
    "an empty line": (edit_line("guest.jsonl", 3, b""), "not_json"),
    "a NaN literal": (edit_line("proc.jsonl", 3, field("minflt", "NaN")), "not_json"),
    "an Infinity literal": (edit_line("proc.jsonl", 3, field("minflt", "-Infinity")), "not_json"),
    "a NaN in an unknown key": (
        edit_line("proc.jsonl", 3, lambda r: r[:-1] + b',"x":NaN}'),
        "not_json",
    ),
    "a line that is a list": (edit_line("proc.jsonl", 3, b"[1]"), "wrong_type"),
    "deep nesting": (edit_line("proc.jsonl", 3, b'{"x":' + b"[" * 100_000), "not_json"),
    "a string for a number": (edit_line("proc.jsonl", 3, field("minflt", '"12"')), "wrong_type"),
    "a boolean for a number": (edit_line("proc.jsonl", 3, field("minflt", "true")), "wrong_type"),
    "an array for a number": (edit_line("guest.jsonl", 3, field("forks", "[1]")), "wrong_type"),
    "an object for a number": (edit_line("netflow.jsonl", 3, field("pkts_in", "{}")), "wrong_type"),
    "an integer beyond int64": (
        edit_line("proc.jsonl", 3, field("minflt", str(2**63))),
        "bad_value",
    ),
    "a monotonic time beyond int64": (
        edit_line("proc.jsonl", 3, field("t_mono_ns", str(2**63))),
        "bad_value",
    ),
    "a protocol beyond int64": (
        edit_line("netflow.jsonl", 3, field("proto", "9" * 20)),
        "bad_value",
    ),
    "a number beyond 1e300": (edit_line("proc.jsonl", 3, field("rss_bytes", "1e301")), "bad_value"),
    "a float that overflows": (
        edit_line("proc.jsonl", 3, field("rss_bytes", "1e999")),
        "bad_value",
    ),
    "no wall time": (edit_line("proc.jsonl", 3, field("t_wall_ns", None)), "missing_field"),
    "no monotonic time": (edit_line("netflow.jsonl", 3, field("t_mono_ns", None)), "missing_field"),
    "a fractional time": (edit_line("proc.jsonl", 3, field("t_wall_ns", "1.5")), "wrong_type"),
    "a bad line in exec": (put(exec_jsonl=b"nonsense\n"), "not_json"),
    "an unknown phase": (labels((0, "clean"), (3, "pwned")), "unknown_phase"),
    "no label": (put(labels_jsonl=b""), "labels_empty"),
    "labels out of order": (
        labels((0, "clean"), (9, "armed"), (8, "infecting")),
        "labels_out_of_order",
    ),
    "labels going back": (labels((0, "armed"), (9, "clean")), "labels_go_back"),
    "a late first label": (labels((1.001, "clean")), "first_label_far"),
    "an early first label": (labels((-1.001, "clean")), "first_label_far"),
    "rows out of order": (
        edit_line("proc.jsonl", 3, field("t_wall_ns", str(START))),
        "rows_out_of_order",
    ),
    "another schema": (edit_meta(schema_version=2), "schema_version"),
    "another episode": (edit_meta(episode_id="e2"), "index_disagrees"),
    "another host": (edit_meta(host_id="birch"), "index_disagrees"),
    "no profile": (edit_meta(profile=...), "missing_field"),
    "a number as profile": (edit_meta(profile=1), "wrong_type"),
    "a boolean as version": (edit_meta(schema_version=True), "wrong_type"),
    "no sources": (edit_meta(sources=...), "missing_field"),
    "a rate of nothing": (edit_meta(sources={"proc": {"hz": 0}}), "bad_value"),
    "an end before its start": (edit_meta(ended_wall_ns=START - 1), "bad_value"),
    "a control that is infected": (edit_meta(profile="none"), "control_not_clean"),
    "meta that is no object": (put(meta_json=b"[]"), "wrong_type"),
    "too few rows": (head("qmp.jsonl", 19), "too_few_rows"),
    "an empty member": (put(guest_jsonl=b""), "too_few_rows"),
}


@pytest.mark.parametrize(("mutate", "code"), REJECTED.values(), ids=REJECTED)
def test_what_says_something_wrong_is_rejected_with_its_reason(store, mutate, code):
    store.add(mutate=mutate)
    verdict, episode = judge(store)
    assert verdict.status == "rejected"
    assert code in codes(verdict)
    assert episode is None


@pytest.mark.parametrize(("member", "number"), [("proc.jsonl", 150), ("netflow.jsonl", 7)])
def test_a_reason_names_member_and_line(store, member, number):
    store.add(mutate=edit_line(member, number, b"{]"))
    (fault,) = judge(store)[0].faults
    assert fault.text.startswith(f"{member} line {number}: ")


ACCEPTED = {
    "half of the rows": head("qmp.jsonl", 20),
    "empty netflow is silence": put(netflow_jsonl=b""),
    "null and absent values": lambda m: (
        edit_line("proc.jsonl", 3, field("minflt", "null"))(m),
        edit_line("proc.jsonl", 4, field("minflt", None))(m),
    ),
    "unknown keys and members": lambda m: (
        edit_line("proc.jsonl", 3, lambda r: r[:-1] + b',"x":{"y":[true]}}')(m),
        m.update({"notes.txt": b"\xff\0", "other.jsonl": b"nonsense"}),
        edit_meta(seed=3, anything={"goes": 1})(m),
    ),
    "fractional gauges": edit_line("proc.jsonl", 3, field("rss_bytes", "12.5")),
    "white space": edit_line("proc.jsonl", 3, lambda r: b"  " + r + b" \r"),
    "no newline at the end": lambda m: m.update({"proc.jsonl": m["proc.jsonl"].rstrip()}),
    "escapes that are no text": edit_line("proc.jsonl", 3, lambda r: r[:-1] + b',"x":"\\ud800"}'),
    "protocols by number": edit_line("netflow.jsonl", 3, field("proto", "47")),
    "the largest integers": edit_line("proc.jsonl", 3, field("threads", str(2**63 - 1))),
    "starting infected, skipping phases": labels((0, "infected_running"), (5, "dormant")),
    "rates left to the table": edit_meta(sources={}),
}


@pytest.mark.parametrize("mutate", ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_format_allows_is_accepted(store, mutate):
    store.add(mutate=mutate)
    verdict, episode = judge(store)
    assert (verdict.status, verdict.faults) == ("accepted", [])
    assert episode is not None


def whole():
    return members_of()


def replace_bytes(packed):
    return lambda store: store.put("alder", "e1", packed)


SUMMED = zstandard.ZstdCompressor(write_checksum=True).compress(tar_of(whole()))
ERRORED = {
    "an empty file": (b"", "not_zstd"),
    "no zstd": (b"PK\3\4 something else", "not_zstd"),
    "no tar": (zstandard.compress(b"text " * 500), "not_tar"),
    "nothing in the frame": (zstandard.compress(b""), "not_tar"),
    "a cut frame": (pack(whole())[:-100], "cut_short"),
    "a cut header": (pack(whole())[:7], "cut_short"),
    "a damaged frame": (SUMMED[:200] + b"\0" * 50 + SUMMED[250:], "not_zstd"),
    "bytes after the frame": (pack(whole()) + b"more", "not_zstd"),
    "a tar cut in a member": (zstandard.compress(tar_of(whole())[:5000]), "cut_short"),
    "a tar cut between members": (zstandard.compress(tar_of(whole())[:1024]), "cut_short"),
}


@pytest.mark.parametrize(("packed", "code"), ERRORED.values(), ids=ERRORED)
def test_what_cannot_be_decoded_is_errored(store, packed, code):
    store.put("alder", "e1", packed)
    verdict, episode = judge(store)
    assert (verdict.status, codes(verdict)) == ("errored", {code})
    assert episode is None
    assert verdict.profile is None


def test_a_file_that_is_gone_is_errored(store):
    store.add()
    (store.folder / "alder/e1.tar.zst").unlink()
    assert codes(judge(store)[0]) == {"file_missing"}


def test_a_pipe_a_folder_and_a_link_out_of_the_store_are_never_opened(store, tmp_path):
    store.add()
    path = store.folder / "alder/e1.tar.zst"
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert codes(judge(store)[0]) == {"bad_index_record"}
    path.unlink()
    os.mkfifo(path)
    assert codes(judge(store)[0]) == {"file_missing"}
    path.unlink()
    path.mkdir()
    assert codes(judge(store)[0]) == {"file_missing"}
    path.rmdir()
    path.symlink_to(path)
    assert codes(judge(store)[0]) == {"file_missing"}


def test_errored_wins_over_rejected_and_all_reasons_are_listed(store):
    store.put("alder", "e1", pack(members_of())[:-100], size_bytes=1, sha256="0" * 64)
    verdict, _ = judge(store)
    assert verdict.status == "errored"
    assert codes(verdict) == {"size_mismatch", "sha256_mismatch", "cut_short"}


def test_several_faults_of_one_episode_are_all_listed(store):
    def mutate(members):
        edit_meta(episode_id="e2", profile=3)(members)
        edit_line("proc.jsonl", 3, b"nonsense")(members)
        edit_line("proc.jsonl", 5, field("minflt", "true"))(members)
        drop("qmp.jsonl")(members)
        drop("netflow.jsonl")(members)

    store.add(mutate=mutate)
    verdict, _ = judge(store)
    assert codes(verdict) == {"index_disagrees", "wrong_type", "not_json", "no_qmp", "no_netflow"}
    assert len([fault for fault in verdict.faults if fault.code == "wrong_type"]) == 2


@pytest.mark.parametrize(
    ("limits", "mutate"),
    [
        (Limits(unpacked_bytes=10_000), None),
        (Limits(unpacked_bytes=500), None),
        (Limits(members=3), None),
        (Limits(line_bytes=100), None),
        (Limits(duration_s=10), None),
        (Limits(rows=199), None),
        (Limits(name_chars=4), edit_meta(profile="beacon")),
        (Limits(), edit_meta(sample_name="x" * 1025)),
        (Limits(), lambda m: m.update({"big": b"\0" * (65 << 20)})),
    ],
)
def test_what_is_over_a_limit_is_errored(store, limits, mutate):
    store.add(mutate=mutate)
    verdict, episode = judge(store, limits)
    assert (verdict.status, episode) == ("errored", None)
    assert "over_limit" in codes(verdict)


@pytest.mark.parametrize(
    ("background", "works"),
    [
        (["bg-idle", "bg-build", "bg-idle"], ["bg-idle", "bg-build"]),
        ([], []),
        ("bg-idle", ["bg-idle"]),
        (None, None),
        (["bg-idle", 3], None),
        ([""], None),
        (["x" * 1025], None),
        (["\ud800"], None),
        ({"bg-idle": 1}, None),
        ([f"bg-{i}" for i in range(33)], None),
    ],
)
def test_the_background_is_known_where_meta_names_it_and_no_fault_where_not(
    store, background, works
):
    store.add(mutate=edit_meta(background=background))
    verdict, _ = judge(store)
    assert (verdict.status, verdict.background) == ("accepted", works)
    assert verdict.row("b")["background"] == works


def test_members_that_the_format_does_not_know_are_ignored_whatever_they_are(store):
    tar = tar_of([*members_of().items(), ("notes", b"1"), ("notes", b"2")])
    buffer = io.BytesIO(tar)
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        folder, link = tarfile.TarInfo("extra"), tarfile.TarInfo("link")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(folder)
        archive.addfile(link)
    store.put("alder", "e1", zstandard.compress(buffer.getvalue()))
    assert judge(store)[0].status == "accepted"


def test_a_name_that_is_not_utf8_is_written_escaped(store):
    pairs = [(name.replace("meta", "met\udcff"), data) for name, data in members_of().items()]
    store.put("alder", "e1", pack(pairs))
    verdict, _ = judge(store)
    assert codes(verdict) == {"no_meta"}
    assert "met\\xff.json" in verdict.faults[0].text


def test_a_tar_without_members_is_rejected(store):
    store.put("alder", "e1", zstandard.compress(bytes(10_240)))
    verdict, episode = judge(store)
    assert (verdict.status, episode) == ("rejected", None)
    assert {"no_meta", "no_labels", "no_proc", "no_qmp", "no_guest"} <= codes(verdict)


def test_a_hostile_member_is_judged_soon(store):
    start = time.monotonic()
    store.add(mutate=put(netflow_jsonl=b"\n" * 30_000_000))
    assert "over_limit" in codes(judge(store)[0])
    store.index.write_text("")
    store.add(mutate=put(netflow_jsonl=b"{}\n" * 190_000))
    assert codes(judge(store)[0]) == {"missing_field"}
    assert time.monotonic() - start < 10


def test_a_member_twice_there_or_a_link_is_rejected(store):
    pairs = [*members_of().items(), ("qmp.jsonl", b"")]
    store.put("alder", "e1", pack(pairs))
    assert codes(judge(store)[0]) == {"duplicate_member"}

    tar = tar_of({k: v for k, v in members_of().items() if k != "qmp.jsonl"})
    buffer = io.BytesIO(tar)
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        link = tarfile.TarInfo("qmp.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    store.index.write_text("")
    store.put("alder", "e1", zstandard.compress(buffer.getvalue()))
    verdict, _ = judge(store)
    assert verdict.status == "rejected"
    assert "not_regular" in codes(verdict)


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_of_any_usual_format_is_read_alike(store, format_):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for name, content in {"d" * 99 + "/" + "n" * 50: b"long", **members_of()}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1795319373.25
            archive.addfile(info, io.BytesIO(content))
    store.put("alder", "e1", zstandard.compress(buffer.getvalue()))
    assert judge(store)[0].status == "accepted"


def test_a_frame_that_does_not_say_its_size_is_read_within_the_limit(store):
    tar = tar_of(members_of())
    compressor = zstandard.ZstdCompressor().compressobj()
    packed = compressor.compress(tar) + compressor.flush()
    assert zstandard.get_frame_parameters(packed).content_size > 2**60
    store.put("alder", "e1", packed)
    assert judge(store)[0].status == "accepted"
    verdict, _ = judge(store, Limits(unpacked_bytes=len(tar) - 1))
    assert codes(verdict) == {"over_limit"}


def test_a_record_without_sum_or_size_is_rejected_not_followed_blindly(store):
    packed = pack(members_of())
    store.put("alder", "e1", packed, sha256=None, size_bytes="12")
    verdict, _ = judge(store)
    assert (verdict.status, codes(verdict)) == ("rejected", {"missing_field"})
