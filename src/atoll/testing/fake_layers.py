"""Layers of fake sandboxes: a tree of files in memory, as one file on a real disk, and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

from atoll.domain.errors import InvalidInput
from atoll.domain.secret import FILES_FOLDER
from atoll.testing.fake_files import FakeFiles


def save_layer(files: FakeFiles, destination: Path) -> None:
    """`destination` is a new folder."""
    os.mkdir(destination)
    nodes = [
        {"path": path, "kind": node.kind, "text": node.content.hex(), "target": node.target, "mode": node.mode}
        for path, node in files.walk()
        if not path.startswith(f"{FILES_FOLDER}/")  # no part of the writable layer
    ]
    (destination / "files.json").write_text(json.dumps(nodes))


def load_layer(files: FakeFiles, source: Path) -> None:
    """InvalidInput where there is none."""
    try:
        nodes = json.loads((source / "files.json").read_text())
    except OSError:
        raise InvalidInput(f"layer {source} does not exist", field="layers") from None
    for node in nodes:
        if node["kind"] == "directory":
            files.make_dir(node["path"])
        elif node["kind"] == "symlink":
            files.link(node["path"], node["target"])
        else:
            files.write(node["path"], bytes.fromhex(node["text"]), node["mode"])
