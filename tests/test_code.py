import ast
import re
import subprocess
import sys

import pytest

from cis490.code import LEARNING, code_hash, keep, recall
from tests.conftest import ROOT

PACKAGE = ROOT / "src/cis490"
# What every job shares and what decides nothing about the content of its results.
INFRASTRUCTURE = {
    *("__init__.py", "config.py", "errors.py", "files.py", "logs.py", "code.py", "hardware.py"),
    *("gpus.py", "home.py", "words.py"),
}


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (lambda s: s.replace("x + 1", "x + 2"), True),
        (lambda s: s.replace("# why", "# because"), False),
        (lambda s: s.replace('"""Doc."""', '"""Other."""'), False),
        (lambda s: s.replace("x + 1", "(x  +\n        1)"), False),
        (lambda s: s + "\ny = 3\n", True),
    ],
)
def test_an_edit_counts_and_a_comment_does_not(tmp_path, edit, changes):
    source = 'def f(x):\n    """Doc."""\n    # why\n    return x + 1\n'
    file = tmp_path / "pkg/f.py"
    file.parent.mkdir()
    file.write_text(source)
    before = code_hash([file.parent])
    file.write_text(edit(source))
    assert (code_hash([file.parent]) != before) == changes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = y in {1, 2}", "x = y in (1, 2)"),
        ("def f(a): return a", "def f(*, a): return a"),
        ("def f(a=1): pass", "def f(a=2): pass"),
        ("def f(): return 1", "def g(): return 1"),
        ("try:\n    f()\nfinally:\n    g()", "f()\ng()"),
        ("class A: x = 1", "class A: x = 2"),
        ("f = lambda: 1", "f = lambda: 2"),
    ],
)
def test_what_runs_differently_has_another_hash(tmp_path, one, other):
    hashes = set()
    for name, source in (("a", one), ("b", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.py").write_text(source)
        hashes.add(code_hash([tmp_path / name / "f.py"]))
    assert len(hashes) == 2


def test_every_process_finds_the_same_hash(tmp_path):
    (tmp_path / "f.py").write_text("x = y in {'a', 'b', 'c', 'd', ('e', 1), None}\n")
    script = "from pathlib import Path; from cis490.code import code_hash; "
    script += f"print(code_hash([Path({str(tmp_path / 'f.py')!r})]))"
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (lambda s: s.replace("x + 1", "x + 2"), True),
        (lambda s: s.replace("why", "because"), False),
        (lambda s: s.replace("{ return", "{\n    return"), False),
    ],
)
def test_of_c_too_an_edit_counts_and_a_comment_does_not(tmp_path, edit, changes):
    source = "/* why:\n * so */\nint f(int x) { return x + 1; }\n"
    before, after = tmp_path / "a/f.c", tmp_path / "b/f.c"
    for file, content in ((before, source), (after, edit(source))):
        file.parent.mkdir()
        file.write_text(content)
    assert (code_hash([before]) != code_hash([after])) == changes


@pytest.fixture
def forget(monkeypatch):
    """From here on as in a new process: nothing is known of any file."""

    def forget():
        monkeypatch.setattr("cis490.code._recalled", {})
        monkeypatch.setattr("cis490.code._asked", {})

    forget()
    return forget


@pytest.fixture
def kept(tmp_path, forget):
    """A file, its hash, and where an earlier process kept what it means, which this one recalls."""
    file, path = tmp_path / "f.py", tmp_path / "cache/code.json"
    file.write_text("x = 1\n")
    found = code_hash([file])
    keep(path)
    forget()
    recall(path)
    return file, found, path


def test_what_was_found_of_code_is_kept_for_the_next_process(kept, monkeypatch):
    file, found, path = kept
    monkeypatch.setattr("cis490.code._bare", lambda *_: pytest.fail("compiled again"))
    assert code_hash([file]) == found
    path.unlink()
    keep(path)  # nothing is new
    assert not path.exists()


def test_what_is_kept_of_code_is_of_its_content_alone(kept):
    file, found, _ = kept
    file.write_text("x = 2\n")
    assert code_hash([file]) != found


@pytest.mark.usefixtures("forget")
def test_where_nothing_can_be_kept_of_code_nothing_is(tmp_path):
    (tmp_path / "f.py").write_text("x = 1\n")
    (tmp_path / "cache").write_text("a file")
    code_hash([tmp_path / "f.py"])
    keep(tmp_path / "cache/code.json")
    assert (tmp_path / "cache").read_text() == "a file"


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{"])
def test_a_damaged_record_of_code_is_found_anew(tmp_path, forget, content):
    file, kept = tmp_path / "f.py", tmp_path / "code.json"
    file.write_text("x = 1\n")
    before = code_hash([file])
    forget()
    kept.write_text(content)
    recall(kept)
    assert code_hash([file]) == before


def test_a_path_that_is_gone_is_an_error_not_an_unchanged_hash(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.py"):
        code_hash([tmp_path / "gone.py"])


def imports_of(file):
    """Modules of the package that a file imports, functions' own imports included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cis490"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("cis490")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = re.findall(r"^(cis490(?:\.\w+)+):\w+$", node.value)  # the registry's entries
        for name in names:
            path = PACKAGE.joinpath(*name.split(".")[1:])
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate.exists():
                    found.add(candidate)
    return found


def closure(file):
    seen, queue = set(), [file]
    while queue:
        for module in imports_of(queue.pop()) - seen:
            seen.add(module)
            queue.append(module)
    return seen


def named_code():
    text = (ROOT / "rules/common.smk").read_text()
    block = text[text.index("VERDICTS = [") : text.index("\n}\n", text.index("CODE = {")) + 2]
    names = {"LEARNING": list(LEARNING)}
    exec(block, names)
    return names["CODE"]


@pytest.mark.parametrize("rule", sorted(named_code()))
def test_each_rule_names_all_the_code_that_its_script_imports(rule):
    parts = [PACKAGE / part for part in named_code()[rule]]
    unnamed = {
        str(module.relative_to(PACKAGE))
        for module in closure(ROOT / f"workflow/scripts/{rule}.py")
        if module.name != "__init__.py"
        and str(module.relative_to(PACKAGE)) not in INFRASTRUCTURE
        and not any(module == part or part in module.parents for part in parts)
    }
    assert not unnamed


def test_the_library_never_imports_snakemake():
    for file in PACKAGE.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", file.read_text(), re.M), file


def test_c_counts_as_code_of_the_rules_that_use_it():
    named = {rule: {PACKAGE / part for part in parts} for rule, parts in named_code().items()}
    # That of the lab's guest runs in the guest, in no rule.
    for source in set(PACKAGE.rglob("*.c")) - set((PACKAGE / "lab").rglob("*.c")):
        rule = {"episodes": "ingest", "windows": "windows"}[source.parent.name]
        assert {source, source.parent} & named[rule], f"{rule} does not name {source.name}"
