"""What a job costs beside its work: it imports what its stage needs, and nothing dear beside it."""

import pytest

pytestmark = pytest.mark.workflow

# Packages whose import costs a tenth of a second or more. torch brings sympy, xgboost scikit-learn.
DEAR = {"torch", "xgboost", "matplotlib", "scipy", "optuna", "pandas", "tensorboard", "hypothesis"}
NEEDED = {
    **dict.fromkeys("ingest gather schema windows manifest fit split summarise".split(), ("",)),
    **dict.fromkeys("evaluate detection calibration report".split(), ("scipy",)),
    "curves": ("matplotlib",),
    "page": ("matplotlib scipy",),
    # A job of gbt and one of mlp each: what one learns with, the other does without.
    **dict.fromkeys("train out_of_fold predict".split(), ("scipy xgboost", "torch")),
}


def test_a_job_imports_only_what_its_stage_needs(finished):
    got = {}
    for file in (finished.folder / "site").glob("*.imports"):
        jobs = file.read_text().splitlines()
        got[file.stem] = tuple(sorted({" ".join(sorted(DEAR & set(j.split()))) for j in jobs}))
    assert got == NEEDED


def test_the_scheduler_looks_again_once_a_second_however_many_jobs_have_ended(finished):
    told = finished.folder / "site/timers"
    if not told.exists():
        pytest.skip("this version of Snakemake does not start timers")
    n_timers, seconds = map(float, told.read_text().split())
    assert n_timers <= seconds + 1
