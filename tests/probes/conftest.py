"""Fewer draws, so that tests are quick."""

import pytest

from cis490.probes import exchanged, hosts


@pytest.fixture(autouse=True, scope="package")
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchanged, "DRAWS", 99)
        patch.setattr(hosts, "DRAWS", 99)
        yield
