"""Triplets for training: a source and a truth of one person, a driving picture of somebody else with the truth's pose.

A jsonl file with one triplet a line: ``{"source_image", "conditioning_image", "ground_truth"}``, paths below the
images' folder, and ``"truth_is_real": false`` where the truth was made by a face swapper.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.files import write_whole
from ...core.progress import Progress, silent
from ...imaging.image import LoadedImage
from ...imaging.load import load_image
from ...imaging.save import save_image

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".webp")

Swapper = Callable[[Tensor, Tensor], "Tensor | None"]
"""Shows the person of the first picture ``(1, 3, H, W)`` in the second one; None where it cannot."""


@dataclass(frozen=True)
class Triplet:
    """One line of the file."""

    source_image: str
    conditioning_image: str
    ground_truth: str
    truth_is_real: bool = True


def read_triplets(path: Path, images: Path) -> list[Triplet]:
    """Read and check a file of triplets.

    Raises:
        InputError: a line is not a triplet, or a picture is missing or lies outside the folder.
    """
    if not path.is_file():
        raise InputError(f"triplets file {path.name} does not exist; make one with: faceveil triplets")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            triplet = Triplet(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"line {number} of {path.name} is not a triplet ({error}); it needs source_image, conditioning_image,"
                " ground_truth"
            ) from None
        for name in (triplet.source_image, triplet.conditioning_image, triplet.ground_truth):
            file = images / name
            if not file.resolve().is_relative_to(images.resolve()) or not file.is_file():
                raise InputError(f"line {number} of {path.name} names {name}, which is not in {images.name}")
        found.append(triplet)
    if not found:
        raise InputError(f"{path.name} holds no triplets")
    return found


class TripletDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Pictures of triplets, flipped together half of the time.

    Nothing is drawn from a global state: an item depends on the seed, the epoch and its index, so that training resumes
    exactly.

    Args:
        size: side of the square crops in pixels.
        clip_processor: from ``pipeline.clip_processor``.
    """

    def __init__(self, triplets: Sequence[Triplet], images: Path, size: int, seed: int, clip_processor: Any) -> None:
        self.triplets, self.images, self.size, self.seed = list(triplets), images, size, seed
        self.clip_processor = clip_processor

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, place: Any) -> dict[str, Tensor]:
        """The item at ``(epoch, index)``: ``source``, ``driving``, ``truth`` ``(3, S, S)`` in [-1, 1] and the first two
        for CLIP."""
        epoch, index = place
        triplet = self.triplets[index]
        source, driving, truth = (
            self._picture(n) for n in (triplet.source_image, triplet.conditioning_image, triplet.ground_truth)
        )
        if draws(self.seed, epoch, index).random() < 0.5:
            source, driving, truth = (picture.flip(-1) for picture in (source, driving, truth))
        seen = self.clip_processor(
            images=torch.stack([source, driving]), do_rescale=False, return_tensors="pt"
        ).pixel_values
        return {
            "source": source * 2 - 1,
            "driving": driving * 2 - 1,
            "truth": truth * 2 - 1,
            "source_clip": seen[0],
            "driving_clip": seen[1],
        }

    def _picture(self, name: str) -> Tensor:
        pixels = load_image(self.images / name).pixels
        height, width = pixels.shape[-2:]
        scale = self.size / min(height, width)
        sides = [max(self.size, round(n * scale)) for n in (height, width)]
        resized = torch.nn.functional.interpolate(
            pixels, size=sides, mode="bilinear", antialias=True, align_corners=False
        )
        y, x = ((n - self.size) // 2 for n in sides)
        return resized[0, :, y : y + self.size, x : x + self.size].clamp(0, 1)


class ResumableSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """Endless ``(epoch, index)`` pairs, each epoch in another order, from any position on."""

    def __init__(self, count: int, seed: int, start: int = 0) -> None:
        self.count, self.seed, self.start = count, seed, start

    def __iter__(self) -> Any:
        epoch, first = divmod(self.start, self.count)
        while True:
            order = draws(self.seed, epoch).permutation(self.count)
            yield from ((epoch, int(i)) for i in order[first:])
            epoch, first = epoch + 1, 0


def draws(*key: int) -> np.random.Generator:
    """Random numbers that depend on ``key`` only."""
    return np.random.default_rng(key)


def build_triplets(
    people: Path, output: Path, swap: Swapper, seed: int = 0, progress: Progress = silent
) -> list[Triplet]:
    """Make triplets from a folder with one sub-folder a person.

    For each picture of a person with two or more, another one of the person is the source and a picture of somebody
    else takes
    part: (a) that somebody's picture drives, and the truth is the person swapped into it; (b) the truth is the real
        picture, and
    what drives is that somebody swapped into it.

    Args:
        output: folder for the swapped pictures and ``triplets.jsonl``; real pictures are copied into it without
            metadata.
        swap: shows the person of one picture in another.

    Raises:
        InputError: fewer than two people, or nobody with two pictures.
    """
    photos = {
        d.name: sorted(p for p in d.iterdir() if p.suffix.lower() in PICTURES)
        for d in sorted(people.iterdir())
        if d.is_dir()
    }
    photos = {name: files for name, files in photos.items() if files}
    if len(photos) < 2 or all(len(files) < 2 for files in photos.values()):
        raise InputError(
            f"{people.name} needs sub-folders of at least two people, and two pictures of at least one of them"
        )
    rng, made = np.random.default_rng(seed), []
    jobs = [(name, file) for name, files in photos.items() if len(files) > 1 for file in files]
    kept: dict[Path, str] = {}

    def keep(file: Path) -> str:
        if file not in kept:
            kept[file] = f"real/{len(kept):06}.png"
            save_image(LoadedImage(load_image(file).pixels), output / kept[file])
        return kept[file]

    for done, (name, truth) in enumerate(jobs):
        progress(done, len(jobs), "swapping faces")
        source = _other(rng, [f for f in photos[name] if f != truth])
        stranger = _other(rng, [f for other, files in photos.items() if other != name for f in files])
        pixels = {file: load_image(file).pixels for file in (source, truth, stranger)}
        for kind, (person, scene) in {"a": (source, stranger), "b": (stranger, truth)}.items():
            swapped = swap(pixels[person], pixels[scene])
            if swapped is None:
                log.warning("a face was not found, so one triplet is left out")
                continue
            path = f"swapped/{done:06}{kind}.png"
            save_image(LoadedImage(swapped), output / path)
            if kind == "a":
                made.append(Triplet(keep(source), keep(stranger), path, truth_is_real=False))
            else:
                made.append(Triplet(keep(source), path, keep(truth), truth_is_real=True))
    progress(len(jobs), len(jobs), "swapping faces")
    write_whole(output / "triplets.jsonl", "".join(json.dumps(asdict(t)) + "\n" for t in made).encode())
    return made


def _other(rng: np.random.Generator, files: list[Path]) -> Path:
    return files[int(rng.integers(len(files)))]
