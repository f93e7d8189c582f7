import pytest

from cis490.lab.loop import Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()
