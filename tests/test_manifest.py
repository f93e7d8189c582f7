import os

import pytest

from cis490.errors import FormatError
from cis490.manifest import read_manifest, write_manifest


@pytest.fixture
def windows(tmp_path):
    features, tensors = tmp_path / "a.parquet", tmp_path / "a.safetensors"
    features.write_bytes(b"12345")
    tensors.write_bytes(b"123")
    return features, tensors


def test_a_manifest_gives_back_the_files_and_their_size(windows, tmp_path):
    features, tensors = windows
    write_manifest([features], [str(tensors)], tmp_path / "m.json")
    manifest = read_manifest(tmp_path / "m.json")
    assert (manifest.features, manifest.tensors) == ([features], [tensors])
    assert manifest.n_bytes == {"features": 5, "tensors": 3}
    assert manifest.here() is manifest


def test_a_job_is_told_which_file_is_gone_and_what_to_do(windows, tmp_path):
    features, tensors = windows
    write_manifest([features], [tensors], tmp_path / "m.json")
    tensors.unlink()
    manifest = read_manifest(tmp_path / "m.json")  # to plan with it is no error
    with pytest.raises(FormatError, match=r"a\.safetensors is gone: run `snakemake data`"):
        manifest.here()


def test_a_manifest_says_something_else_once_a_file_was_made_again(windows, tmp_path):
    features, tensors = windows
    out = tmp_path / "m.json"
    write_manifest([features], [tensors], out)
    before = out.read_bytes()
    write_manifest([features], [tensors], out)
    assert out.read_bytes() == before
    os.utime(tensors, ns=(1, 1))  # of the same size, as another code may make it
    write_manifest([features], [tensors], out)
    assert out.read_bytes() != before


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.parquet"):
        write_manifest([tmp_path / "b.parquet"], [], tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"features": [["a"]], "tensors": []}', '{"features": 1, "tensors": 2}'],
)
def test_what_is_no_manifest_is_said_to_be_none_with_its_path(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(FormatError, match=r"m\.json is no manifest of windows .*: remove it"):
        read_manifest(tmp_path / "m.json")
