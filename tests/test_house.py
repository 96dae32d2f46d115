"""The rules that keep the house in order."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(p for folder in ("nodes", "pipelines", "weights") for p in (ROOT / folder).rglob("*.py"))

# Lower rooms may not look into higher ones.
RANK = {
    "pipelines.errors": 0,
    "pipelines.progress": 0,
    "weights": 0,
    "pipelines.images": 1,
    "pipelines.sample": 1,
    "pipelines.faces": 1,
    "pipelines.stored": 1,
    "pipelines.identity": 2,
    "pipelines.geometry": 2,
    "pipelines.methods": 3,
    "pipelines.jobs": 4,
    "pipelines.evaluate": 5,
    "pipelines.doctor": 6,
    "pipelines.cli": 6,
    "nodes": 6,
}


def _room(module: str) -> str | None:
    return max((room for room in RANK if module == room or module.startswith(room + ".")), key=len, default=None)


def _imports(path: Path) -> list[str]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    package = module.removesuffix(".__init__") if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            found += [target] + [f"{target}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    here = _room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if here is None:
        return
    for target in _imports(path):
        room = _room(target)
        assert room is None or RANK[room] <= RANK[here], f"{path.name} ({here}) imports {target}"
        if not here.startswith("nodes"):
            assert target.split(".")[0] not in (
                "comfy",
                "comfy_api",
                "folder_paths",
                "nodes",
            ), f"{path.name} imports {target}"


def test_the_rule_would_notice() -> None:
    assert RANK[_room("pipelines.jobs.photo")] > RANK[_room("pipelines.faces.detect")]
    assert "pipelines.faces.face" in _imports(ROOT / "pipelines" / "jobs" / "photo.py")


def test_requirements_match_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        line.strip()
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert lines == project["dependencies"]


def test_all_packages_are_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {"faceveil." + ".".join(p.parent.relative_to(ROOT).parts) for p in SOURCES if p.name == "__init__.py"}
    assert listed == present | {"faceveil"}


def test_import_is_cheap() -> None:
    code = (
        "import sys, faceveil, faceveil.pipelines.cli; print([m for m in ('torch', 'dlib', 'onnxruntime', 'kornia') if"
        " m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_python_m_faceveil() -> None:
    answer = subprocess.run([sys.executable, "-m", "faceveil", "--help"], capture_output=True, text=True, check=True)
    assert "anonymize" in answer.stdout


def test_built_in_weights_are_what_their_card_says() -> None:
    import hashlib

    from faceveil.weights.builtin import FOLDER
    from faceveil.weights.catalog import cards

    built_in = {c.file: c for c in cards() if c.folder == "built-in"}
    assert set(built_in) == {p.name for p in FOLDER.iterdir()}
    for c in built_in.values():
        data = (FOLDER / c.file).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (c.bytes, c.sha256)
        assert len(data) <= 6_000_000
