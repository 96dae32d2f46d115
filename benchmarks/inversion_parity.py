"""Parity with the authors' code of NullFace and Reverse Personalization: recompute recorded runs on tiny networks.

    python benchmarks/inversion_parity.py [DIR] [--comfy COMFYUI]

DIR contains networks in the layout of diffusers (``sd15``, ``sdxl``), the adapters, ``manifest.json`` with the settings
of each case, and recorded tensors. The default is ../shared/fixtures/any_checkpoint beside the repository.

For each case it prints the largest absolute errors on the library path, and how many rows of the UNet were evaluated.
With a ComfyUI, by ``--comfy`` or COMFYUI_DIR, it also prints the error of the final latents through ComfyUI's UNet,
sampler machinery and our nodes' patches. The exit code is 1 where a bar is missed, and the shortfall is named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faceveil.pipelines.methods.inversion import nullface, reverse
from faceveil.pipelines.methods.inversion.adapter import FaceIdAdapter, open_adapter
from faceveil.pipelines.methods.inversion.attention import install
from faceveil.pipelines.methods.inversion.denoiser import Row, alphas_bar
from faceveil.pipelines.methods.inversion.embedding import within_angle
from faceveil.pipelines.methods.inversion.pipeline import Condition, UNetDenoiser, latent_mask
from faceveil.pipelines.methods.inversion.text import Text
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT.parent / "shared" / "fixtures" / "any_checkpoint"
BARS = {
    "tokens": 1e-5,
    "probe": 1e-5,
    "x0": 1e-5,
    "noisy": 1e-5,
    "z": 5e-4,
    "final": 2e-4,
    "pixels": 1.0,
    "comfy": 2e-4,
}
"""Largest absolute errors; pixels are of 255."""


@dataclass(frozen=True)
class Case:
    """One recorded run: its entry of the manifest, its tensors, and the networks that it belongs to."""

    folder: Path
    entry: dict[str, Any]
    recorded: dict[str, Tensor]
    adapter: FaceIdAdapter

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.entry["settings"])

    @property
    def nullface(self) -> bool:
        return self.entry["method"] == "nullface"

    @property
    def network(self) -> str:
        return "sd15" if self.nullface else "sdxl"


def open_case(folder: Path, entry: dict[str, Any]) -> Case:
    name = "sd15" if entry["method"] == "nullface" else "sdxl"
    adapter = open_adapter(folder / "ipadapter" / f"ip-adapter-faceid_{name}.safetensors")
    return Case(folder, entry, load_file(folder / entry["file"]), adapter)


def open_networks(case: Case) -> tuple[Any, Any]:
    """The UNet with the adapter installed, and the VAE; float32."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    root = case.folder / case.network
    unet = UNet2DConditionModel.from_pretrained(root / "unet", torch_dtype=torch.float32).eval()
    vae = AutoencoderKL.from_pretrained(root / "vae", torch_dtype=torch.float32).eval()
    install(unet, case.adapter, case.settings["ip_adapter_scale"])
    return unet, vae


def conditions(case: Case, nobody: Tensor, person: Tensor) -> dict[Row, Condition]:
    """The rows with the recorded texts and size ids."""
    c = case.recorded
    if case.nullface:
        text, size = Text(c["text_empty"]), torch.zeros(1, 6)
        return {"empty": Condition(text, nobody, size), "identity": Condition(text, person, size)}

    def row(phase: str, sign: str, tokens: Tensor) -> Condition:
        text = Text(c[f"text_{phase}_{sign}"], c[f"pooled_{phase}_{sign}"])
        return Condition(text, tokens, c[f"time_ids_{phase}"])

    return {
        "nothing": row("inversion", "negative", nobody),
        "empty": row("inversion", "positive", nobody),
        "identity": row("generation", "positive", person),
        "attributes": row("generation", "negative", nobody),
    }


def run(case: Case, denoise: Any, x0: Tensor, bars: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Noised latents, noise maps in the recorded order, and final latents."""
    c, s, noises = case.recorded, case.settings, list(case.recorded["noises"].split(1))
    if case.nullface:
        steps = s["num_diffusion_steps"]
        depth = steps - s["skip"]
        found = nullface.invert(denoise, bars, x0, noises[:depth], steps)
        z = [nullface.noise_map(found, bars, k, s["eta"]) for k in range(1, depth + 1)]
        # Our function refuses a mask that would never act; theirs ignores it.
        acts = s["mask_delay_steps"] < depth
        mask = c["mask_latent"] if case.entry.get("mask") and acts else None
        final = nullface.generate(
            denoise, bars, found, s["guidance_scale"], s["eta"], mask=mask, mask_delay=s["mask_delay_steps"]
        )
        return found.noisy, z, final
    timesteps = reverse.timesteps_of(s["num_inversion_steps"], s["skip"])
    inverted = reverse.invert(denoise, bars, x0, noises, timesteps)
    z = reverse.noise_maps(inverted, reverse.Solver(bars, timesteps), s["guidance_scale"])
    # The row without identity can only be taken from the inversion where its text and its size ids are the same.
    same = torch.equal(c["time_ids_inversion"], c["time_ids_generation"]) and s["attribute_prompt"] is None
    return inverted.noisy, z, reverse.generate(denoise, bars, inverted, s["guidance_scale"], attributes=not same)


def prepared_image(case: Case) -> Tensor:
    """The picture as the authors prepare it, ``(1, 3, H, W)`` in [-1, 1]."""
    image = Image.open(case.folder / case.entry["image"]).convert("RGB")
    if case.nullface:
        width, height = image.size
        side, size = min(width, height), case.entry["size"]
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    else:
        width, height = (side // 8 * 8 for side in image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None].contiguous()
    return pixels / 127.5 - 1 if case.nullface else pixels / 255 * 2 - 1


def tokens_of(case: Case) -> tuple[Tensor, Tensor]:
    """The tokens of nobody and of the person."""
    s = case.settings
    sign = -1.0 if case.nullface else 1.0
    turned = within_angle(sign * case.recorded["face_embedding"].numpy(), 0.0, s["seed"]) * s["id_emb_scale"]
    person = torch.from_numpy(turned).float()[None]
    return case.adapter.tokens(torch.zeros_like(person)), case.adapter.tokens(person)


@torch.no_grad()
def check(case: Case) -> tuple[dict[str, float], int]:
    """The errors on the library path by name, and the rows that were evaluated."""
    c, (unet, vae), (nobody, person) = case.recorded, open_networks(case), tokens_of(case)
    rows = conditions(case, nobody, person)
    denoise = UNetDenoiser(unet, rows)
    pair: tuple[Row, Row] = ("empty", "identity") if case.nullface else ("attributes", "identity")
    x, t = c["probe_x"][:1], 401
    probe = torch.cat(denoise(x, t, pair))
    denoise.rows = 0
    factor = vae.config.scaling_factor
    x0 = vae.encode(prepared_image(case)).latent_dist.mode() * factor
    noisy, z, final = run(case, denoise, x0, alphas_bar())
    decoded = (vae.decode(final / factor).sample / 2 + 0.5).clamp(0, 1) * 255
    # NullFace's code truncates, that of Reverse Personalization rounds.
    pixels = decoded.byte() if case.nullface else decoded.round().byte()
    recorded_z = c["zs"][: len(z)]
    errors = {
        "tokens": max(_error(person, c["tokens_id"]), _error(nobody, c["tokens_zero"])),
        "probe": _error(probe, c["probe_eps"]),
        "x0": _error(x0, c["x0_latent"]),
        "noisy": _error(noisy[:, 0], c["wts"][: len(noisy)]),
        "z": _error(torch.cat(z), recorded_z),
        "final": _error(final, c["final_latent"]),
        "pixels": _error(pixels.float(), c["image_uint8"].float()),
    }
    if case.entry.get("mask"):
        size, cells = case.entry["size"], c["mask_latent"].shape[-2:]
        image = Image.open(case.folder / case.entry["mask"]).convert("RGB").convert("L")
        mask = np.array(image.resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32)[None, None] / 255
        errors["mask"] = _error(latent_mask(torch.from_numpy(mask), *cells), c["mask_latent"])
    return errors, denoise.rows


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def comfy_error(case: Case) -> float:
    """The error of the final latents in ComfyUI."""
    from inversion_comfy import final_latents

    return _error(final_latents(case, *tokens_of(case)), case.recorded["final_latent"])


def vector_error(folder: Path, manifest: dict[str, Any]) -> float:
    """Largest error of the recorded turned vectors."""
    if not (folder / "vectors.safetensors").is_file():
        return 0.0
    vectors = load_file(folder / "vectors.safetensors")
    errors = [
        np.abs(
            within_angle(vectors[f"input_{i}"].numpy(), v["max_angle_deg"], v["seed"]) - vectors[f"output_{i}"].numpy()
        )
        for i, v in enumerate(manifest.get("vectors", []))
    ]
    return float(max((e.max() for e in errors), default=0.0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FIXTURE)
    parser.add_argument("--comfy", type=Path, default=os.environ.get("COMFYUI_DIR"), help="folder of a ComfyUI")
    options = parser.parse_args()
    manifest = json.loads((options.folder / "manifest.json").read_text())
    missed = []
    if options.comfy:
        sys.path.insert(0, str(Path(__file__).parent))
        from inversion_comfy import load

        load(Path(options.comfy))
    for entry in manifest["cases"]:
        case = open_case(options.folder, entry)
        errors, rows = check(case)
        if options.comfy:
            errors["comfy"] = comfy_error(case)
        shown = "  ".join(f"{name} {value:.1e}" for name, value in errors.items())
        print(f"{entry['name']:26} {shown}  rows {rows} (authors {entry['unet_rows']})")
        missed += [
            f"{entry['name']}: {n} {v:.1e} > {BARS.get(n, 0):.0e}" for n, v in errors.items() if not v <= BARS.get(n, 0)
        ]
        if rows > entry["unet_rows"]:
            missed.append(f"{entry['name']}: {rows} rows where the authors evaluate {entry['unet_rows']}")
    turned = vector_error(options.folder, manifest)
    print(f"turned vectors {turned:.1e}")
    if not turned <= 1e-6:
        missed.append(f"turned vectors {turned:.1e} > 1e-6")
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
