"""Triplets for training: a source image, a driving image and a ground truth.

Source and ground truth show the same person. Driving image and ground truth have the same pose and expression, but the
driving image shows another person.

The file is a jsonl file with one triplet per line: ``{"source_image", "conditioning_image", "ground_truth"}``, with
paths relative to the image folder, and ``"truth_is_real": false`` if a face swapper made the ground truth.
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
from ...imaging.formats import find_images
from ...imaging.image import LoadedImage
from ...imaging.load import load_image
from ...imaging.save import save_image

log = logging.getLogger(__name__)

Swapper = Callable[[Tensor, Tensor], "Tensor | None"]
"""Function that swaps the face of the first image ``(1, 3, H, W)`` into the second one; returns None on failure."""


@dataclass(frozen=True)
class Triplet:
    """One line of the file; paths are relative to the image folder."""

    source_image: str
    conditioning_image: str
    ground_truth: str
    truth_is_real: bool = True


def read_triplets(path: Path, images: Path) -> list[Triplet]:
    """Read and check a file of triplets.

    Args:
        path: the jsonl file.
        images: the image folder.

    Raises:
        InputError: the file is missing or empty, a line is not a triplet, or an image is missing or outside the folder.
    """
    if not path.is_file():
        raise InputError(f"triplets file {path.name} does not exist; create one with: faceveil triplets")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            triplet = Triplet(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"line {number} of {path.name} is not a triplet ({error}); it needs source_image, conditioning_image"
                " and ground_truth"
            ) from None
        for name in (triplet.source_image, triplet.conditioning_image, triplet.ground_truth):
            file = images / name
            if not file.resolve().is_relative_to(images.resolve()) or not file.is_file():
                raise InputError(
                    f"line {number} of {path.name} names {name}, which is not in {images.name}; correct the path"
                )
        found.append(triplet)
    if not found:
        raise InputError(f"{path.name} contains no triplets; create them with: faceveil triplets")
    return found


class TripletDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Images of triplets. The three images of a triplet are flipped together with probability 0.5.

    No global random state is used: an item depends only on the seed, the epoch and its index, so that a resumed run
    gets the same items.

    Args:
        triplets: the triplets.
        images: the image folder.
        size: side of the square crops in pixels.
        seed: seed of the flips.
        clip_processor: ``ReferenceNetPipeline.clip_processor``.
    """

    def __init__(self, triplets: Sequence[Triplet], images: Path, size: int, seed: int, clip_processor: Any) -> None:
        self.triplets, self.images, self.size, self.seed = list(triplets), images, size, seed
        self.clip_processor = clip_processor

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, position: Any) -> dict[str, Tensor]:
        """Load the item at ``(epoch, index)``.

        Returns:
            ``source``, ``driving`` and ``truth``, ``(3, S, S)`` in [-1, 1]; ``source_clip`` and ``driving_clip``, the
            first two as inputs for CLIP.
        """
        epoch, index = position
        triplet = self.triplets[index]
        source, driving, truth = (
            self._image(n) for n in (triplet.source_image, triplet.conditioning_image, triplet.ground_truth)
        )
        if seeded_rng(self.seed, epoch, index).random() < 0.5:
            source, driving, truth = (image.flip(-1) for image in (source, driving, truth))
        clip_pixels = self.clip_processor(
            images=torch.stack([source, driving]), do_rescale=False, return_tensors="pt"
        ).pixel_values
        return {
            "source": source * 2 - 1,
            "driving": driving * 2 - 1,
            "truth": truth * 2 - 1,
            "source_clip": clip_pixels[0],
            "driving_clip": clip_pixels[1],
        }

    def _image(self, name: str) -> Tensor:
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
    """Yield endless ``(epoch, index)`` pairs, with a new order in each epoch.

    Args:
        count: number of items per epoch.
        seed: seed of the orders.
        start: number of pairs to skip.
    """

    def __init__(self, count: int, seed: int, start: int = 0) -> None:
        self.count, self.seed, self.start = count, seed, start

    def __iter__(self) -> Any:
        epoch, first = divmod(self.start, self.count)
        while True:
            order = seeded_rng(self.seed, epoch).permutation(self.count)
            yield from ((epoch, int(i)) for i in order[first:])
            epoch, first = epoch + 1, 0


def seeded_rng(*key: int) -> np.random.Generator:
    """Create a random generator that depends only on ``key``."""
    return np.random.default_rng(key)


def build_triplets(
    people: Path, output: Path, swap: Swapper, seed: int = 0, progress: Progress = silent
) -> list[Triplet]:
    """Make triplets from a folder with one sub-folder per person.

    For each image of a person with two or more images, another image of this person is the source. Together with a
    random image of another person, two triplets follow:

    (a) the driving image is the image of the other person, and the ground truth is the person swapped into it;
    (b) the ground truth is the real image, and the driving image is the other person swapped into it.

    Args:
        people: folder with one sub-folder per person.
        output: folder for the swapped images and ``triplets.jsonl``. Real images are copied into it without metadata.
        swap: the face swapper.
        seed: seed of the choice of images.
        progress: called once per real image.

    Raises:
        InputError: there are fewer than two people, or no person has two images.
    """
    photos = {d.name: find_images(d) for d in sorted(people.iterdir()) if d.is_dir()}
    photos = {name: files for name, files in photos.items() if files}
    if len(photos) < 2 or all(len(files) < 2 for files in photos.values()):
        raise InputError(
            f"{people.name} must contain sub-folders for at least two people, with two or more images for at least one"
            " of them"
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
        other_person = _other(rng, [f for other, files in photos.items() if other != name for f in files])
        pixels = {file: load_image(file).pixels for file in (source, truth, other_person)}
        for kind, (person, scene) in {"a": (source, other_person), "b": (other_person, truth)}.items():
            swapped = swap(pixels[person], pixels[scene])
            if swapped is None:
                log.warning("the face swapper failed on one pair of images, so one triplet is left out")
                continue
            path = f"swapped/{done:06}{kind}.png"
            save_image(LoadedImage(swapped), output / path)
            if kind == "a":
                made.append(Triplet(keep(source), keep(other_person), path, truth_is_real=False))
            else:
                made.append(Triplet(keep(source), path, keep(truth), truth_is_real=True))
    progress(len(jobs), len(jobs), "swapping faces")
    write_whole(output / "triplets.jsonl", "".join(json.dumps(asdict(t)) + "\n" for t in made).encode())
    return made


def _other(rng: np.random.Generator, files: list[Path]) -> Path:
    return files[int(rng.integers(len(files)))]
