import subprocess
import sys

import pytest
import torch

from cis490.errors import ConfigError
from cis490.models import FitSettings
from cis490.training.device import computing, resolve_device, seeded

CPU = torch.device("cpu")


def test_cuda_where_there_is_none_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"training\.device is cuda, but"):
        resolve_device("cuda")
    with pytest.raises(ConfigError, match="tpu is not one of auto, cpu, cuda"):
        resolve_device("tpu")


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
    assert resolve_device("cpu") == CPU


def test_the_callers_random_state_threads_and_algorithms_come_back():
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    with computing(FitSettings(threads=1)), seeded(7, CPU):
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(5)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_computing_does_not_load_torchs_compiler():
    # 800 modules and 2 s of CPU, in each job that only predicts.
    code = """
import sys
from cis490.models import FitSettings
from cis490.training.device import computing

with computing(FitSettings()):
    sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
