"""Write the help page of every node and the English texts: ``python web/build.py COMFYUI_DIR``.

A help page is made of the node's own texts, so that they cannot drift apart: its schema and its attribute ``HELP``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def load_nodes(host: Path) -> list[Any]:
    """All node classes of the pack inside a ComfyUI folder."""
    sys.path.insert(0, str(host))
    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    sys.argv = arguments
    spec = importlib.util.spec_from_file_location(
        "faceveil_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faceveil_pack"] = module
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    return list(asyncio.run(extension.get_node_list()))


def page(node: Any) -> str:
    """Help page of one node: its description, its ``HELP``, and the tooltips of its sockets and widgets."""
    schema = node.GET_SCHEMA()
    lines = [f"# {schema.display_name}", "", schema.description, "", inspect.cleandoc(node.HELP), ""]
    if schema.inputs:
        lines += ["## Inputs", ""]
        for item in schema.inputs:
            lines += [f"- **{item.id}**{' (optional)' if item.optional else ''}: {item.tooltip}"]
            for option in getattr(item, "options", None) or []:
                # Only a dynamic combo's options have inputs of their own.
                nested = getattr(option, "inputs", [])
                lines += [f"  - **{inner.id}** ({option.key}): {inner.tooltip}" for inner in nested]
        lines += [""]
    if schema.outputs:
        lines += ["## Outputs", ""] + [f"- **{o.display_name}**: {o.tooltip}" for o in schema.outputs] + [""]
    return "\n".join(lines)


def definitions(schemas: list[Any]) -> dict[str, Any]:
    """English ``nodeDefs.json``."""
    return {
        s.node_id: {
            "display_name": s.display_name,
            "description": s.description,
            "inputs": {i.id: {"name": i.id, "tooltip": i.tooltip} for i in s.inputs},
            "outputs": {str(n): {"name": o.display_name, "tooltip": o.tooltip} for n, o in enumerate(s.outputs)},
        }
        for s in schemas
    }


def main() -> None:
    nodes = sorted(load_nodes(Path(sys.argv[1]).resolve()), key=lambda node: node.GET_SCHEMA().node_id)
    docs = ROOT / "web" / "docs"
    docs.mkdir(parents=True, exist_ok=True)
    for stale in docs.glob("FaceVeil_*.md"):
        stale.unlink()
    for node in nodes:
        (docs / f"{node.GET_SCHEMA().node_id}.md").write_text(page(node), encoding="utf-8")
    target = ROOT / "locales" / "en" / "nodeDefs.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps(definitions([node.GET_SCHEMA() for node in nodes]), indent=2, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
