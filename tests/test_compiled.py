import errno
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from cis490 import compiled
from cis490.episodes import kernel
from cis490.windows import features
from tests.conftest import ROOT

FUNCTIONS = {kernel.SOURCE: "cis490_plain_rows", features.SOURCE: "cis490_statistics"}
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler here"
)


@pytest.fixture
def build():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(FUNCTIONS) == set(module.SOURCES)
    return module


@pytest.fixture
def compile_library(build):
    return build.compile_library


@needs_compiler
def test_where_there_is_a_compiler_the_compiled_functions_are_used():
    assert kernel._plain_rows is not None, "install again: pip install --no-deps -e ."
    assert features._statistics is not None, "install again: pip install --no-deps -e ."


@needs_compiler
@pytest.mark.parametrize(("source", "function"), FUNCTIONS.items(), ids=FUNCTIONS.values())
def test_what_was_compiled_from_another_source_is_not_used(
    tmp_path, compile_library, source, function
):
    changed = tmp_path / source.name
    changed.write_bytes(source.read_bytes() + b"/* changed */\n")
    other, own = tmp_path / "other.so", tmp_path / "own.so"
    assert compile_library(changed, other) is None
    assert compiled.load(source, function, [], library=other) is None
    assert compile_library(source, own) is None
    assert compiled.load(source, function, [], library=own) is not None
    assert compiled.load(source, "no_such_function", [], library=own) is None
    assert compiled.load(source, function, [], library=tmp_path / "none.so") is None


def test_without_a_compiler_the_installation_says_so_and_goes_on(
    tmp_path, compile_library, monkeypatch
):
    monkeypatch.setenv("CC", "no-such-compiler")
    problem = compile_library(kernel.SOURCE, tmp_path / "rows.so")
    assert problem == "no-such-compiler: No such file or directory"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quoted", ["'gcc", '"'])
def test_a_compiler_that_is_no_command_is_no_compiler(
    tmp_path, compile_library, monkeypatch, quoted
):
    monkeypatch.setenv("CC", quoted)
    assert compile_library(kernel.SOURCE, tmp_path / "rows.so") == "CC: No closing quotation"


@pytest.mark.skipif(not shutil.which("cc"), reason="no cc here")
def test_where_the_compiler_of_this_python_is_not_here_another_is_taken(
    tmp_path, compile_library, monkeypatch
):
    monkeypatch.setenv("CC", " ")
    monkeypatch.setattr(sysconfig, "get_config_var", {"CC": "clang-of-the-builder -x"}.get)
    assert compile_library(kernel.SOURCE, tmp_path / "rows.so") is None


def test_in_a_folder_that_cannot_be_written_to_the_installation_says_so_and_goes_on(
    tmp_path, build, monkeypatch
):
    def refuse(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setenv("CC", "false")
    monkeypatch.setattr(Path, "unlink", refuse)
    assert build.compile_library(kernel.SOURCE, tmp_path / "rows.so").endswith("file system")
    warnings, data = [], {"artifacts": []}
    hook = SimpleNamespace(app=SimpleNamespace(display_warning=warnings.append), root=str(ROOT))
    build.CustomBuildHook.initialize(hook, "editable", data)
    assert data == {"artifacts": []}
    assert len(warnings) == len(FUNCTIONS)
