import importlib.util
import shutil

import pytest

from cis490 import compiled
from cis490.episodes import kernel
from cis490.windows import features
from tests.conftest import ROOT

FUNCTIONS = {kernel.SOURCE: "cis490_whole_rows", features.SOURCE: "cis490_statistics"}
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler here"
)


@pytest.fixture
def compile_library():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(FUNCTIONS) == set(module.SOURCES)
    return module.compile_library


@needs_compiler
def test_where_there_is_a_compiler_the_compiled_functions_are_used():
    assert kernel._whole_rows is not None, "install again: pip install --no-deps -e ."
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
    assert compiled.load(source, function, other) is None
    assert compile_library(source, own) is None
    assert compiled.load(source, function, own) is not None
    assert compiled.load(source, "no_such_function", own) is None
    assert compiled.load(source, function, tmp_path / "none.so") is None


def test_without_a_compiler_the_installation_says_so_and_goes_on(
    tmp_path, compile_library, monkeypatch
):
    monkeypatch.setenv("CC", "no-such-compiler")
    problem = compile_library(kernel.SOURCE, tmp_path / "rows.so")
    assert problem == "no-such-compiler: No such file or directory"
    assert list(tmp_path.iterdir()) == []
