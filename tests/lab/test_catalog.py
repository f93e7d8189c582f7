"""What the guest can run, and the rules that keep a corpus from being cheated on."""

import re
import shutil
import subprocess

import pytest

from cis490.errors import LabError
from cis490.lab import catalog
from cis490.lab.image import GUEST

PROFILES = "beacon-burst cpu-saturate fork-churn io-walk low-and-slow scan-and-dial".split()
PHASES = "clean armed infecting infected running dormant".split()
LIBRARY = (GUEST / "lib.sh").read_text()
WORDS = set(re.findall(r"^(\w+)\(\)", LIBRARY, re.MULTILINE))
SHELL = set("if then else fi while do done case esac for in local wait :".split())


def commands(text):
    """The words that stand where the shell looks for a command."""
    text = re.sub(r"#.*", "", text)
    text = re.sub(r"\$\(\(.*?\)\)", "0", text)
    text = re.sub(r"\b(then|else|do|if|while)\b", ";", text)
    found = re.findall(r"(?:^|[;|&])[ \t]*([A-Za-z_]\w*)", text, re.MULTILINE)
    return {word for word in found if not re.search(rf"^\s*(local )?{word}=", text, re.M)} - SHELL


def own(text):
    return set(re.findall(r"^(\w+)\(\)", text, re.MULTILINE))


def a_file(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_each_profile_has_four_samples_and_a_benign_twin():
    found = catalog.samples()
    twins = {job.twin for job in catalog.jobs()}
    assert sorted({sample.profile for sample in found}) == PROFILES
    for profile in PROFILES:
        assert sum(sample.profile == profile for sample in found) >= 4
        assert profile in twins
    assert len(catalog.jobs()) >= 10


def test_samples_imitate_something_of_their_own():
    said = [program.imitates for program in (*catalog.samples(), *catalog.jobs())]
    assert len(set(said)) == len(said)


def test_a_twin_is_a_profile():
    assert {job.twin for job in catalog.jobs()} - {None} <= set(PROFILES)


def test_a_new_program_is_a_file_in_a_folder(tmp_path):
    a_file(tmp_path, "samples/odd-one/odd-a.sh", "# imitates: a thing\n# needs: network\ngo\n")
    a_file(tmp_path, "jobs/knit.sh", "#!/bin/sh\n# imitates: a hobby\n# twin: odd-one\n\ngo\n")
    sample, job = catalog.samples(tmp_path)[0], catalog.jobs(tmp_path)[0]
    assert (sample.name, sample.kind, sample.profile) == ("odd-a", "sample", "odd-one")
    assert (sample.network, sample.twin, sample.inside) == (True, None, "samples/odd-one/odd-a.sh")
    assert (job.name, job.twin, job.network, job.inside) == (
        "knit",
        "odd-one",
        False,
        "jobs/knit.sh",
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("samples/p/a.sh", "go\n", "# imitates:"),
        ("samples/p/a.sh", "go\n# imitates: too late\n", "# imitates:"),
        ("samples/p/a.sh", "# imitates: x\n# needs: luck\n", "luck"),
        ("samples/p/A b.sh", "# imitates: x\n", "A b"),
        ("samples/P_q/a.sh", "# imitates: x\n", "P_q"),
    ],
)
def test_a_wrong_header_or_name_is_told_with_its_file(tmp_path, name, content, says):
    path = a_file(tmp_path, name, content)
    with pytest.raises(LabError, match=re.escape(says)) as told:
        catalog.samples(tmp_path)
    assert str(path) in str(told.value)


def test_a_job_must_say_its_twin(tmp_path):
    a_file(tmp_path, "jobs/a.sh", "# imitates: x\n")
    with pytest.raises(LabError, match="twin"):
        catalog.jobs(tmp_path)


def test_two_samples_of_one_name_are_refused(tmp_path):
    for profile in "pq":
        a_file(tmp_path, f"samples/{profile}/a.sh", "# imitates: x\n")
    with pytest.raises(LabError, match="one name"):
        catalog.samples(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(LabError, match="no program"):
        catalog.samples(tmp_path)


@pytest.mark.parametrize(
    "program", [*catalog.samples(), *catalog.jobs()], ids=lambda program: program.name
)
def test_a_program_uses_the_common_words_alone(program):
    text = program.path.read_text()
    assert commands(text) - own(text) <= WORDS
    assert text.endswith("\ngo\n")


def test_samples_use_no_word_that_no_job_uses():
    """Else a command in exec.jsonl would tell an infection by itself."""

    def used(programs):
        """With what the words themselves use."""
        text = "\n".join(program.path.read_text() for program in programs)
        found = commands(text) & WORDS
        while True:
            bodies = re.findall(r"^(\w+)\(\) \{(.*?)^\}", LIBRARY, re.M | re.S)
            more = found | {w for n, b in bodies if n in found for w in commands(b) & WORDS}
            if more == found:
                return found - {"go", *PHASES}
            found = more

    phases = "".join(re.findall(r"^(?:armed|infecting|dormant)\(\) \{.*?^\}", LIBRARY, re.M | re.S))
    by_jobs = used(catalog.jobs())
    assert used(catalog.samples()) <= by_jobs
    assert commands(phases) & WORDS - set(PHASES) <= by_jobs


def test_no_command_line_names_phase_profile_or_sample():
    """What a program runs stands in exec.jsonl: arguments are numbers, paths of numbers, flags."""
    forbidden = {*PHASES, *PROFILES, *(s.name for s in catalog.samples())} - {"running"}
    body = LIBRARY.split("# --- phases")[0]
    code = "\n".join(line.split("#")[0] for line in body.splitlines()[10:])
    assert not [word for word in forbidden if re.search(rf"\b{word}\b", code)]


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell")
@pytest.mark.parametrize("path", ["init", "lib.sh"])
def test_the_shell_can_read_it(path):
    subprocess.run(["sh", "-n", str(GUEST / path)], check=True)
