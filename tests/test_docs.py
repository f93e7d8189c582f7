"""Docs are read by people who then type what they say."""

import argparse
import re

import pytest

from cis490 import cli
from cis490.config import resolve
from cis490.episodes.faults import MEANING
from cis490.evaluation.baselines import TRAINED
from cis490.models import ARCHITECTURES, BASELINES
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def subcommands(parser=None, before=""):
    names = []
    for action in (parser or cli._parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                names += subcommands(command, f"{before}{name} ") or [f"{before}{name}"]
    return names


@pytest.mark.parametrize("name", subcommands())
def test_every_command_is_in_the_readme_and_has_help(name, capsys):
    assert f"cis490 {name}" in README
    with pytest.raises(SystemExit) as done:
        cli.main([*name.split(), "--help"])
    assert done.value.code == 0
    assert len(capsys.readouterr().out) > 100


def test_links_of_the_docs_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_architectures_of_the_settings_are_those_of_the_registry():
    assert list(ARCHITECTURES) == resolve({})["models"]
    assert list(BASELINES) == resolve({})["baselines"] == list(TRAINED)


def test_each_status_code_is_explained_once():
    assert all(text and not text.endswith(".") for text in MEANING.values())
    assert len(set(MEANING.values())) == len(MEANING)


def test_the_readme_shows_a_report_of_the_present_shape():
    shown = README.split("<!-- headline -->")[1].split("<!-- end of headline -->")[0]
    assert "**Answer:**" in shown
    for architecture in ARCHITECTURES:
        assert re.search(rf"\| {architecture}\b", shown), architecture
