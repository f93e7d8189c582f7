import os
import platform

import pytest

from cis490 import hardware


@pytest.mark.parametrize(
    ("device", "driver", "visible", "cpu_build", "expected"),
    [
        ("cpu", True, None, False, False),
        ("cuda", False, None, True, True),
        ("auto", True, None, False, True),
        ("auto", False, None, False, False),
        ("auto", True, "", False, False),
        ("auto", True, "-1", False, False),
        ("auto", True, "1", False, True),
        ("auto", True, None, True, False),
    ],
)
def test_trainings_ask_for_a_gpu_unless_the_device_comes_to_the_cpu(
    device, driver, visible, cpu_build, expected, monkeypatch, tmp_path
):
    (tmp_path / "driver").write_text("")
    monkeypatch.setattr(hardware, "_DRIVER", tmp_path / ("driver" if driver else "nothing"))
    monkeypatch.setattr(hardware, "_torch_is_cpu_build", lambda: cpu_build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.may_use_gpu(device) == expected


def test_the_machine_is_described(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nMHz: 1\n")
    monkeypatch.setattr(hardware, "_CPU", tmp_path / "cpuinfo")
    told = hardware.describe()
    assert told["cpu"] == "Some CPU @ 2 GHz"
    assert 1 <= told["n_cores"] <= os.cpu_count()
    assert told["memory_bytes"] > 2**28
    assert told["system"].startswith(platform.system())


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  R\n", "580.82.07"),
        (None, None),
    ],
)
def test_the_driver_tells_its_version(text, version, monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "_DRIVER", tmp_path / "version")
    if text:
        (tmp_path / "version").write_text(text)
    assert hardware.nvidia_driver() == version


def test_the_peak_of_memory_stays_after_the_memory_is_given_back():
    before = hardware.peak_memory_bytes()
    held = b"x" * (before + 2**26)  # more than was ever held
    del held
    assert hardware.peak_memory_bytes() >= before + 2**26
