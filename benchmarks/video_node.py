"""Peak memory of the nodes Veil Video and Redact Video inside ComfyUI, for a short and a long clip.

    COMFYUI_DIR=~/ComfyUI python benchmarks/video_node.py PORTRAITS

The clips are those of the test bench: 198 and 1,998 frames of 480 x 270. Each node runs in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from clips import bench, cards, frames_of, write_clip

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = (22, 222)
"""Frames of each of the bench's nine shots."""
SIZE = (480, 270)
VIDEO = {"no_face": "pass", "sensitivity": "normal", "codec": "auto"}
NODES = {
    "RedactVideo": {"style": "solid", "shape": "ellipse"},
    "VeilVideo": {"strength": 1.0, "seed": 0, "unsafe_face": "redact", "method": {"method": "appearance", "search": 1}},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--node", choices=NODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        _run(options.node, options.portraits)
        return 0
    people = cards(sorted(options.portraits.glob("*.webp"))[:8])
    with tempfile.TemporaryDirectory() as temporary:
        clips = [Path(temporary) / f"{length}.mp4" for length in LENGTHS]
        for clip, length in zip(clips, LENGTHS, strict=True):
            write_clip(clip, (p for p, _ in frames_of(bench(length), people, *SIZE)), sound=False)
        for node in NODES:
            short, long = (_peak(node, clip) for clip in clips)
            print(f"{node}: {short:.0f} MiB for 198 frames, {long:.0f} MiB for 1,998 ({long / short - 1:+.1%})")
    return 0


def _peak(node: str, clip: Path) -> float:
    command = [sys.executable, __file__, str(clip), "--node", node]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(answer.stdout.split()[-1]) / 1024


def _run(name: str, clip: Path) -> None:
    """Run a node on a clip, and print the peak memory of this process in KiB."""
    import torch

    spec = importlib.util.spec_from_file_location("faceveil_web_build", ROOT / "web" / "build.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    nodes = {node.GET_SCHEMA().node_id: node for node in build.load_nodes(Path(os.environ["COMFYUI_DIR"]).expanduser())}
    from comfy_api.latest import InputImpl

    node = nodes[f"FaceVeil_{name}"].PREPARE_CLASS_CLONE({})
    with torch.inference_mode():
        node.execute(video=InputImpl.VideoFromFile(str(clip)), **VIDEO, **NODES[name])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    sys.exit(main())
