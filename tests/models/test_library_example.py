import re

from tests.conftest import ROOT


def test_the_example_in_the_readme_runs(capsys):
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- library-example -->\s*```python\n(.*?)```", readme, re.DOTALL)
    assert found, "README.md has no python block after <!-- library-example -->"
    example = found[1]
    assert len(example.splitlines()) <= 15
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    for name in ("gbt", "mlp", "cnn", "gru", "lstm", "transformer"):
        assert re.search(rf"^{name}\b", printed, re.MULTILINE)
