"""Training data of DiffDeID's network for video (section 3.4): clips of one person each.

A folder in the layout of VoxCeleb: each folder that holds images is a clip, and so is each video file. A sample is a
frame, the coefficients of its neighbors, and another frame of the clip, from which texture and light come.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...faces.align import crop
from ...faces.detectors import open_detector
from ...faces.landmarks import fit_landmarks
from ...faces.search import THRESHOLD
from ...geometry.alignment import SIDE
from ...geometry.builtin import NAME, built_in_morphable_model
from ...geometry.clip import join, smooth
from ...geometry.coefficients import Coefficients, Standardizer
from ...geometry.fitting import Estimate, Fitter
from ...imaging.formats import find_images
from ...training.portraits import read_pixels
from ...training.shards import Item, Shards, build
from .conditions import layout_of, reference_image, render_face
from .network import Conditions

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi")
RADIUS = 13
"""Frames before and after the current one whose coefficients the network sees, as in PIRender."""
MIN_FRAMES, MAX_FRAMES = 4, 128
"""Frames of a clip; longer clips are cut."""
CONSTANT = ("identity", "texture", "lighting")
"""Coefficients that are those of the first frame of a video."""


def window_of(index: int, count: int, radius: int = RADIUS) -> list[int]:
    """Indices of the frames around ``index``, clamped at the ends of the clip."""
    return [min(max(i, 0), count - 1) for i in range(index - radius, index + radius + 1)]


class Clips:
    """Prepared clips; a ``TrainingSet``. Each file holds one clip; images are read from disk.

    Attributes:
        standardizer: of the coefficients over all frames.
        space: empty, because the network gets no identity.
    """

    space = ""
    identity_size = 0
    window = 2 * RADIUS + 1

    def __init__(self, shards: Shards) -> None:
        if len(shards) < MIN_FRAMES:
            raise InputError(f"no clip shows a face in {MIN_FRAMES} frames or more; give other clips")
        self._shards = shards
        self._model = built_in_morphable_model()
        layout = layout_of(self._model)
        self._coefficients = Coefficients.from_vector(shards.whole("coefficients"), layout, NAME)
        self.standardizer = Standardizer.of(self._coefficients, layout)
        self._starts = [0, *accumulate(shards.counts)]

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def size(self) -> int:
        return int(self._shards.rows("square", [0]).shape[-1])

    @property
    def coefficient_size(self) -> int:
        return int(self.standardizer.mean.shape[1])

    @property
    def fingerprint(self) -> np.ndarray:
        """Numbers that tell one set of clips from another."""
        return self._shards.whole("coefficients").numpy()

    def draw(self, count: int, drop: float, generator: torch.Generator) -> tuple[Tensor, Conditions]:
        """Frames ``(count, 3, S, S)`` in [-1, 1] and their conditions; ``drop`` has no meaning without identities.

        As in a video, light and texture are those of the other frame, in the rendering and in the coefficients.
        """
        frames = torch.randint(len(self), (count,), generator=generator).tolist()
        references, windows = [], []
        for frame in frames:
            clip = bisect_right(self._starts, frame) - 1
            first, length = self._starts[clip], self._shards.counts[clip]
            other = first + int(torch.randint(length, (1,), generator=generator))
            around = [first + i for i in window_of(frame - first, length, self.window // 2)]
            references.append(other)
            windows.append(self._coefficients.rows(around).replaced(self._coefficients[other], CONSTANT))
        faces = [render_face(self._model, window[self.window // 2], self.size)[0] for window in windows]
        images, reference = (self._shards.rows("square", rows).float() / 255 for rows in (frames, references))
        conditions = Conditions(
            torch.cat(faces),
            reference_image(reference),
            torch.zeros(count, 0),
            torch.stack([self.standardizer.standardize(window) for window in windows]),
        )
        return images * 2 - 1, conditions


def build_clips(root: Path, folder: Path, size: int, workers: int, progress: Progress = silent) -> Clips:
    """Compute the training data of a folder of clips, or read it where it was computed before.

    Raises:
        InputError: there are no usable clips, or ``folder`` holds data of other clips or another size.
    """
    sources = find_clips(root)
    if not sources:
        raise InputError(f"{root.name} holds no clips; name a folder with folders of frames, or with videos")
    jobs = [(source, size) for source in sources]
    build(prepare_clip, jobs, sources, folder, {"size": size, "clips": True}, 1, workers, progress, "preparing clips")
    return Clips(Shards(folder))


def find_clips(root: Path) -> list[Path]:
    """Folders that hold images, and videos, below ``root``, sorted."""
    folders = {path.parent for path in find_images(root)} if root.is_dir() else set()
    videos = {path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES}
    return sorted(folders | videos)


def prepare_clip(source: Path, size: int) -> list[Item]:
    """The frames of one clip that show a face; none, with a warning in the log, where there are too few."""
    model, detector = built_in_morphable_model(), open_detector()
    fitter = Fitter(model)
    squares: list[np.ndarray] = []
    estimates: list[Estimate] = []
    try:
        for image in read_frames(source):
            found = detector(image, THRESHOLD)
            best = max(found, key=lambda d: d.score, default=None)
            points = None if best is None else fit_landmarks(image, best.box, best.five)
            if points is None:
                continue
            estimate = fitter(image, points)
            square = crop(image, estimate.transforms[0].double().numpy() * (size / SIDE), size)[0]
            squares.append((square.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
            estimates.append(estimate)
            if len(squares) == MAX_FRAMES:
                break
    except InputError as error:
        log.warning("%s; the clip is left out", error)
        return []
    if len(squares) < MIN_FRAMES:
        log.warning("%s shows a face in fewer than %d frames; it is left out", source.name, MIN_FRAMES)
        return []
    # One shape and texture for the clip; the rest stays as measured, as it does in a video that is de-identified.
    vectors = smooth(join(estimates), 0.0).coefficients.to_vector(layout_of(model)).numpy()
    return [{"square": square, "coefficients": vector} for square, vector in zip(squares, vectors, strict=True)]


def read_frames(source: Path) -> Iterator[Tensor]:
    """Frames ``(1, 3, H, W)`` in [0, 1] of a folder or a video, one at a time."""
    if source.is_dir():
        for path in sorted(p for p in find_images(source) if p.parent == source):
            yield read_pixels(path)
        return
    import av

    try:
        with av.open(str(source)) as container:
            for frame in container.decode(video=0):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                yield pixels.movedim(-1, 0)[None].float() / 255
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{source.name} cannot be read as a video ({error}); remove it") from None
