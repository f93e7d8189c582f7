"""Host configurations: those that ship, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from cis490.errors import LabError
from cis490.lab.hosts import PROFILES, Host, read_hosts
from tests.conftest import ROOT

GOOD = {"machine": "q35", "cpu": "max", "memory_mib": 128, "vcpus": 1, "disk_cache": "writeback"}


def written(tmp_path, text):
    file = tmp_path / "hosts.yaml"
    file.write_text(text)
    return file


def host(**changes):
    return ", ".join(f"{key}: {value}" for key, value in {**GOOD, **changes}.items())


def test_the_hosts_that_ship_differ_as_a_corpus_needs():
    hosts = {each.host_id: each for each in read_hosts()}
    assert len(hosts) >= 8
    assert hosts["alder"] == Host("alder", "q35", "max", 128, 1, "writeback")
    assert hosts["dogwood"] == Host("dogwood", "q35", "qemu64", 256, 1, "writeback")
    birch = hosts["birch"]
    assert (birch.machine, birch.cpu, birch.vcpus, birch.memory_mib) == ("pc", "qemu64", 2, 192)
    assert birch.disk_cache == "writethrough"
    assert not birch.netflow
    assert "scan-and-dial" not in birch.profiles
    assert sum(not each.netflow for each in hosts.values()) >= 3
    assert any(each.proc_hz == 5 for each in hosts.values())
    assert len({(e.machine, e.cpu, e.memory_mib, e.vcpus) for e in hosts.values()}) == len(hosts)


def test_defaults_are_those_of_the_format(tmp_path):
    (only,) = read_hosts(written(tmp_path, f"oak: {{{host()}}}"))
    assert (only.proc_hz, only.qmp_hz, only.guest_hz) == (10, 2, 1)
    assert only.netflow
    assert only.exec
    assert only.profiles == PROFILES


def test_profiles_stand_in_one_order_however_they_are_written(tmp_path):
    file = written(tmp_path, f"oak: {{{host(profiles='[io-walk, cpu-saturate]')}}}")
    assert read_hosts(file)[0].profiles == ("cpu-saturate", "io-walk")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold hosts"),
        ("[a, b]", "must hold hosts"),
        ("a: {", "is not YAML"),
        ("a/b: {}", "'a/b' is no name of a host"),
        ("7: {}", "7 is no name of a host"),
        ("oak: 7", "oak must hold settings"),
        ("oak: {machine: q35}", "oak lacks cpu"),
        (f"oak: {{{host(memory=128)}}}", "unknown key memory; did you mean memory_mib"),
        (f"oak: {{{host(colour='red')}}}", "unknown key colour; there are machine, cpu"),
        (f"oak: {{{host(memory_mib=72)}}}", "oak.memory_mib is 72, not an integer from 96"),
        (f"oak: {{{host(vcpus='true')}}}", "oak.vcpus is True, not an integer"),
        (f"oak: {{{host(machine='microvm')}}}", "oak.machine is 'microvm', not one of q35, pc"),
        (f"oak: {{{host(cpu=chr(34) + 'max,+avx' + chr(34))}}}", "not a CPU model"),
        (f"oak: {{{host(cpu='[a]')}}}", "not a CPU model"),
        (f"oak: {{{host(proc_hz='.nan')}}}", "oak.proc_hz is nan, not a number"),
        (f"oak: {{{host(netflow=1)}}}", "oak.netflow is 1, not true or false"),
        (f"oak: {{{host(profiles='[mining]')}}}", "not a list of profiles"),
        (f"oak: {{{host(profiles='[[io-walk]]')}}}", "not a list of profiles"),
    ],
)
def test_a_wrong_file_is_refused_with_host_and_key(tmp_path, text, message):
    with pytest.raises(LabError, match=message.replace("[", r"\[")) as refused:
        read_hosts(written(tmp_path, text))
    assert "hosts.yaml" in str(refused.value)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(LabError, match=r"cannot read the hosts .*No such file"):
        read_hosts(tmp_path / "hosts.yaml")


def test_the_hosts_of_the_sample_store_are_those_that_ship():
    ours = {host.host_id: host for host in read_hosts(ROOT / "data/sample/hosts.yaml")}
    shipped = {host.host_id: host for host in read_hosts()}
    assert len(ours) == 6
    assert ours.items() <= shipped.items()
