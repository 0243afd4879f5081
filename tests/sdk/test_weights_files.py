"""A plugin's own weights files: read with errors that name them, and told to its declaration."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from tellsign.errors import WeightsError
from tellsign.weights.files import declare, read_notes, read_weights, version_of


@pytest.fixture
def file(tmp_path):
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "thing-small.safetensors"
    save_file({"a": torch.arange(3.0)}, path, metadata={"version": "1.2.3"})
    return path


def test_tensors_notes_and_version_come_back(file):
    state, notes = read_weights(file)
    assert state["a"].tolist() == [0, 1, 2]
    assert notes == read_notes(file) == {"version": "1.2.3"}
    assert version_of(file) == "thing-small 1.2.3"


def test_a_file_without_notes_has_no_version(file):
    save_file({"a": torch.zeros(1)}, file.with_name("bare.safetensors"))
    assert version_of(file.with_name("bare.safetensors")) == "bare ?"


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 40])
def test_a_missing_or_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    for read in (read_notes, read_weights, version_of):
        with pytest.raises(WeightsError, match=r"broken\.safetensors"):
            read(path)


def test_a_declaration_learns_names_hashes_and_sizes(file, tmp_path):
    declaration = tmp_path / "tellsign.json"
    declaration.write_text(json.dumps({"name": "thing", "weights": ["old"], "summary": "äh"}))
    declare([file], declaration)
    told = json.loads(declaration.read_text())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["weights"] == [
        {"file": "weights/thing-small.safetensors", "sha256": digest, "size": file.stat().st_size}
    ]
    assert (told["name"], told["summary"]) == ("thing", "äh")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tellsign.json", "weights"]
