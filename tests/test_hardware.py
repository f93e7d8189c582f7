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
