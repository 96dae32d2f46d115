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
TESTED = [*SOURCES, *sorted(p for folder in ("tests", "benchmarks", "web") for p in (ROOT / folder).rglob("*.py"))]
MAX_LINES = 400

# Every room of the house, from the bottom up: a room may import those of a lower rank, and itself.
RANK = {
    "pipelines.core": 0,
    "weights": 1,
    "pipelines.imaging": 2,
    "pipelines.faces": 3,
    "pipelines.recognition": 4,
    "pipelines.identity": 5,
    "pipelines.geometry": 6,
    "pipelines.training": 7,
    "pipelines.methods": 8,
    "pipelines.jobs": 9,
    "pipelines.viz": 10,
    "pipelines.cli": 11,
    "nodes": 11,
}
HOST = ("comfy", "comfy_api", "folder_paths", "nodes")
METHODS = "pipelines.methods."


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _room(module: str) -> str | None:
    return max((room for room in RANK if module == room or module.startswith(room + ".")), key=len, default=None)


def _method(module: str) -> str | None:
    """Name of the method's package that a module belongs to."""
    parts = module.removeprefix(METHODS).split(".") if module.startswith(METHODS) else []
    return parts[0] if parts and (ROOT / "pipelines" / "methods" / parts[0]).is_dir() else None


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


@pytest.mark.parametrize("path", SOURCES, ids=_module)
def test_arrows_point_down(path: Path) -> None:
    module = _module(path)
    here = _room(module)
    if module == "pipelines":
        return
    assert here is not None, f"{module} is in no room; add it to RANK and to docs/architecture.md"
    for target in _imports(path):
        room = _room(target)
        assert room is None or room == here or RANK[room] < RANK[here], f"{module} imports {target}"
        assert _method(target) in (None, _method(module)) or not _method(module), f"{module} imports {target}"
        if here != "nodes":
            assert target.split(".")[0] not in HOST, f"{module} imports {target}"


def test_the_rule_would_notice(tmp_path: Path) -> None:
    assert RANK[_room("pipelines.jobs.photo")] > RANK[_room("pipelines.faces.detect")]
    assert "pipelines.faces.face" in _imports(ROOT / "pipelines" / "jobs" / "plan.py")
    assert _room("pipelines.attic.chest") is None
    assert (
        _method("pipelines.methods.inswapper.method") == "inswapper" != _method("pipelines.methods.appearance.search")
    )
    assert _method("pipelines.methods.base") is None


def _picture() -> str:
    """The rooms from the top down, one rank a line."""
    ranks: dict[int, list[str]] = {}
    for room, rank in RANK.items():
        ranks.setdefault(rank, []).append(room.rpartition(".")[2])
    return "\n  v\n".join("  ".join(ranks[rank]) for rank in sorted(ranks, reverse=True))


def test_the_architecture_page_shows_the_rooms() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```\n{_picture()}\n```" in page
    assert all(f"{room.rpartition('.')[2]}/" in page for room in RANK)
    folders = {p.parent.relative_to(ROOT / "pipelines").parts[0] for p in SOURCES if len(p.relative_to(ROOT).parts) > 2
               and p.is_relative_to(ROOT / "pipelines")}  # fmt: skip
    assert folders == {room.rpartition(".")[2] for room in RANK if room.startswith("pipelines.")}


@pytest.mark.parametrize("path", TESTED, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text().replace('"', "")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_requirements_match_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        line.strip()
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert lines == project["dependencies"]


def test_every_folder_of_sources_is_a_package() -> None:
    """setup.py finds packages by their ``__init__.py``."""
    assert {p.parent for p in SOURCES} == {p.parent for p in SOURCES if p.name == "__init__.py"}


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
        assert len(data) <= 7_000_000
