"""Find a ComfyUI (COMFYUI_DIR, a parent custom_nodes folder, or the home folder) and load the pack inside it, or
skip."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _comfy() -> Path | None:
    places = [
        os.environ.get("COMFYUI_DIR"),
        ROOT.parents[1] if ROOT.parent.name == "custom_nodes" else None,
        Path.home() / "ComfyUI",
    ]
    return next((Path(p) for p in places if p and (Path(p) / "comfy_api").is_dir()), None)


def _without(reason: str) -> None:
    """Skip; fail where CI says that a host must be there."""
    if os.environ.get("FACEVEIL_REQUIRE_COMFYUI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def build() -> Any:
    """The module ``web/build.py``."""
    spec = importlib.util.spec_from_file_location("faceveil_web_build", ROOT / "web" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def nodes(build: Any) -> dict[str, Any]:
    """Node id to class."""
    comfy = _comfy()
    if comfy is None:
        _without("no ComfyUI: set COMFYUI_DIR to its folder")
    for package in ("torchvision", "aiohttp"):
        if importlib.util.find_spec(package) is None:
            _without(f"ComfyUI's requirements are not installed here ({package} is missing)")
    return {node.GET_SCHEMA().node_id: node for node in build.load_nodes(comfy)}


def _default(item: Any) -> Any:
    """Value of an input that a user has not touched; a dynamic combo's brings those of its inner inputs."""
    options = getattr(item, "options", None) or []
    if hasattr(next(iter(options), None), "inputs"):
        return {item.id: options[0].key} | {inner.id: inner.default for inner in options[0].inputs}
    return getattr(item, "default", None)


@pytest.fixture(scope="session")
def run(nodes: dict[str, Any]) -> Any:
    """Run a node by its name without prefix; inputs that are not given take their defaults."""
    import torch

    def execute(node_name: str, /, **inputs: Any) -> Any:
        node = nodes[f"FaceVeil_{node_name}"]
        defaults = {i.id: value for i in node.GET_SCHEMA().inputs if (value := _default(i)) is not None}
        # As ComfyUI does it: every node runs in inference mode.
        with torch.inference_mode():
            return node.PREPARE_CLASS_CLONE({}).execute(**(defaults | inputs)).result

    return execute


@pytest.fixture(scope="session")
def server(nodes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running ComfyUI (``tests/helpers/server.py``)."""
    import comfy
    from server import Server

    running = Server(Path(next(iter(comfy.__path__))).parent, tmp_path_factory.mktemp("comfy"))
    yield running
    running.stop()
