from pathlib import Path

import pytest

from tests.builders import Store

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_STORE = ROOT / "data/sample/store"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="more of what CI has time for a little of")
    parser.addoption("--slurm", action="store_true", help="start a SLURM cluster: make test-slurm")
    parser.addoption("--lab", action="store_true", help="record with QEMU: make test-lab")
