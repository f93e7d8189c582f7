import ast
import re

import pytest

from cis490.code import LEARNING, code_hash
from tests.conftest import ROOT

PACKAGE = ROOT / "src/cis490"
# What every job shares and what decides nothing about the content of its results.
INFRASTRUCTURE = {
    *("__init__.py", "config.py", "errors.py", "files.py", "logs.py", "code.py", "hardware.py"),
    *("gpus.py", "home.py"),
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
