"""What a job costs beside its work: it imports what its stage needs, and nothing dear beside it."""

import pytest

pytestmark = pytest.mark.workflow

# Packages whose import costs a tenth of a second or more.
DEAR = {"torch", "xgboost", "matplotlib", "scipy", "sklearn", "optuna", "pandas", "sympy"}
NEEDED = {
    "ingest": set(),
}


def test_a_job_imports_only_what_its_stage_needs(finished):
    got = {}
    for file in (finished.folder / "site").glob("*.imports"):
        for line in file.read_text().splitlines():
            got.setdefault(file.stem, set()).update(DEAR & set(line.split()))
    assert got == NEEDED
