"""Training data of DiffDeID's network for video (section 3.4): clips of one person each.

A folder in the layout of VoxCeleb: each folder that holds images is a clip, and so is each video file. A sample is a
frame, the coefficients of its neighbors, and another frame of the clip, from which texture and light come.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.files import write_whole
from ...core.parallel import parallel
from ...core.progress import Progress, silent
from ...core.stored import read_safetensors
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
from .conditions import layout_of, reference_image, render_face
from .network import Conditions

FORMAT = "faceveil.diffdeid-clip/1"
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi")
RADIUS = 13
"""Frames before and after the current one whose coefficients the network sees, as in PIRender."""
MIN_FRAMES, MAX_FRAMES = 4, 128
"""Frames of a clip; longer clips are cut."""
SMOOTHING = 1.0
"""Standard deviation of the smoothing of the coefficients, in frames."""
_NAMES = ("square", "face", "coefficients")


def window_of(index: int, count: int, radius: int = RADIUS) -> list[int]:
    """Indices of the frames around ``index``, clamped at the ends of the clip."""
    return [min(max(i, 0), count - 1) for i in range(index - radius, index + radius + 1)]


class Clips:
    """Prepared clips in memory; a ``TrainingSet``.

    Attributes:
        standardizer: of the coefficients over all frames.
        space: empty, because the network gets no identity.
    """

    space = ""
    identity_size = 0

    def __init__(self, clips: Sequence[dict[str, Tensor]], window: int = 2 * RADIUS + 1) -> None:
        self._clips, self.window = clips, window
        layout = layout_of(built_in_morphable_model())
        joined = torch.cat([clip["coefficients"] for clip in clips])
        coefficients = Coefficients.from_vector(joined, layout, NAME)
        self.standardizer = Standardizer.of(coefficients, layout)
        lengths = [len(clip["coefficients"]) for clip in clips]
        self._standard = self.standardizer.standardize(coefficients).split(lengths)
        self._frames = [(c, f) for c, length in enumerate(lengths) for f in range(length)]

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        return int(self._clips[0]["square"].shape[-1])

    @property
    def coefficient_size(self) -> int:
        return int(self._standard[0].shape[1])

    @property
    def fingerprint(self) -> np.ndarray:
        """Numbers that tell one set of clips from another."""
        return torch.cat([clip["coefficients"] for clip in self._clips]).numpy()

    def draw(self, count: int, drop: float, generator: torch.Generator) -> tuple[Tensor, Conditions]:
        """Frames ``(count, 3, S, S)`` in [-1, 1] and their conditions; ``drop`` has no meaning without identities."""
        rows = torch.randint(len(self._frames), (count,), generator=generator).tolist()
        images, faces, references, windows = [], [], [], []
        for row in rows:
            place, frame = self._frames[row]
            clip, standard = self._clips[place], self._standard[place]
            other = int(torch.randint(len(standard), (1,), generator=generator))
            images.append(clip["square"][frame].float() / 255)
            references.append(clip["square"][other].float() / 255)
            faces.append(clip["face"][frame].float() / 255)
            windows.append(standard[window_of(frame, len(standard), self.window // 2)])
        conditions = Conditions(
            torch.stack(faces) * 2 - 1,
            reference_image(torch.stack(references)),
            torch.zeros(count, 0),
            torch.stack(windows),
        )
        return torch.stack(images) * 2 - 1, conditions


def build_clips(root: Path, folder: Path, size: int, workers: int, progress: Progress = silent) -> Clips:
    """Compute the training data of a folder of clips, or read it where it was computed before.

    Raises:
        InputError: there are no usable clips, or ``folder`` holds data of other clips or another size.
    """
    sources = find_clips(root)
    if not sources:
        raise InputError(f"{root.name} holds no clips; name a folder with folders of frames, or with videos")
    facts = {"clips": len(sources), "size": size, "first": sources[0].name, "last": sources[-1].name}
    done = folder / "facts.json"
    if done.is_file():
        if json.loads(done.read_text(encoding="utf-8")) != facts:
            raise InputError(f"{folder.name} holds training data of other clips or sizes; remove it or name another")
        return _open(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(source, folder / f"{i:06}.safetensors", size) for i, source in enumerate(sources)]
    if not any(list(parallel(prepare_clip, jobs, workers, progress, "preparing clips"))):
        raise InputError(f"no clip of {root.name} shows a face in {MIN_FRAMES} frames or more")
    write_whole(done, json.dumps(facts).encode())
    return _open(folder)


def find_clips(root: Path) -> list[Path]:
    """Folders that hold images, and videos, below ``root``, sorted."""
    folders = {path.parent for path in find_images(root)} if root.is_dir() else set()
    videos = {path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES}
    return sorted(folders | videos)


def prepare_clip(source: Path, target: Path, size: int) -> bool:
    """Write the squares, rendered faces and coefficients of one clip; False where too few frames show a face."""
    from safetensors.torch import save

    model, detector = built_in_morphable_model(), open_detector()
    fitter, images = Fitter(model), []
    estimates: list[Estimate] = []
    for image in read_frames(source):
        found = detector(image, THRESHOLD)
        best = max(found, key=lambda d: d.score, default=None)
        points = None if best is None else fit_landmarks(image, best.box, best.five)
        if points is not None:
            estimates.append(fitter(image, points))
            images.append(image)
        if len(images) == MAX_FRAMES:
            break
    if len(images) < MIN_FRAMES:
        return False
    estimate = smooth(join(estimates), SMOOTHING)
    squares = torch.cat(
        [
            crop(image, transform.double().numpy() * (size / SIDE), size)
            for image, transform in zip(images, estimate.transforms, strict=True)
        ]
    )
    face, _ = render_face(model, estimate.coefficients, size)
    tensors = {
        "square": (squares.clamp(0, 1) * 255).round().to(torch.uint8),
        "face": ((face + 1) / 2 * 255).round().to(torch.uint8),
        "coefficients": estimate.coefficients.to_vector(layout_of(model)),
    }
    write_whole(target, save({k: v.contiguous() for k, v in tensors.items()}, {"format": FORMAT}))
    return True


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


def _open(folder: Path) -> Clips:
    clips = []
    for file in sorted(folder.glob("*.safetensors")):
        tensors, metadata = read_safetensors(file, "clip", "remove its folder and prepare it again", InputError)
        if metadata.get("format") != FORMAT:
            raise InputError(f"{folder.name} holds other files than clips; name another folder")
        clips.append({name: tensors[name] for name in _NAMES})
    return Clips(clips)
