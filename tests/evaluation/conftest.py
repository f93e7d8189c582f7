"""A small fleet, evaluated once for the tests that only read."""

from __future__ import annotations

import pytest

from tests.evaluation.world import SKILL, SMALL, World


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fleet"), SMALL, SKILL).write().evaluate()
