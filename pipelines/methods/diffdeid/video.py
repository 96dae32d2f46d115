"""De-identify video by reenactment (section 3.4).

The first frame of a person in a shot is de-identified by the network for images; it gives identity, texture and light.
In each later frame, expression, pose and gaze come from the frame. The network for clips draws it from the first frame,
the rendered face, and the coefficients of 13 frames before and after. Without such a network, the network for images
draws each frame with the same person and noise.

Frames stream through: at most 14 are in memory. Where the scene changes, or a person comes back, their first frame is
de-identified again, as the same new person. What cannot be replaced, or still resembles the original, is redacted, and
so is the place of a person between two frames that show them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...faces.face import Box, Face
from ...faces.redact import redact
from ...geometry.coefficients import Coefficients
from ...imaging.resample import resize
from ...recognition.base import FaceRecognizer
from ..base import MAX_STRENGTH, Change, View, pasted
from ..identities import MethodIdentity
from .clips import RADIUS
from .conditions import paste_mask, reference_image, render_face
from .method import DiffDeIDMethod, Prepared
from .network import Conditions
from .pipeline import STEPS, Checkpoint, DiffDeIDPipeline

CUT = 0.18
"""Mean absolute difference of two frames, shrunk to 32 px, above which the scene has changed."""
MIN_OVERLAP = 0.2
"""Smallest intersection over union of a face's boxes in two frames that follow each other."""
CONSTANT = ("identity", "texture", "lighting")
"""Coefficients that are those of the first frame."""
_THUMBNAIL = 32


@dataclass
class Person:
    """One person of the video: how the recognizer knows them, and whom they become.

    Attributes:
        embeddings: of the untouched face in the first frame of each shot, ``(D,)`` each.
        identity: the new person.
    """

    embeddings: list[np.ndarray]
    identity: MethodIdentity


@dataclass
class Track:
    """One person in one shot.

    Attributes:
        person: who it is.
        square: the de-identified first frame, ``(1, 3, S, S)`` in [0, 1].
        coefficients: of the de-identified first frame: its identity, texture and light stay.
        boxes: frame number to the face's box, for the frames that are still needed.
        frames: frame number to p, likewise.
    """

    person: Person
    square: Tensor
    coefficients: Coefficients
    boxes: dict[int, Box] = field(default_factory=dict)
    frames: dict[int, Coefficients] = field(default_factory=dict)

    def add(self, number: int, box: Box, coefficients: Coefficients) -> None:
        """Remember a frame, and forget those that no window reaches."""
        self.boxes[number], self.frames[number] = box, coefficients
        for old in [n for n in self.frames if n < number - 3 * RADIUS]:
            del self.frames[old], self.boxes[old]

    def window(self, number: int) -> Coefficients:
        """p' of the frames around ``number``: identity, texture and light are those of the first frame.

        Where the person was not seen, the nearest frame stands in.
        """
        known = sorted(self.frames)
        wanted = range(number - RADIUS, number + RADIUS + 1)
        rows = [self.frames[min(known, key=lambda k: (abs(k - i), k))] for i in wanted]
        parts = {name: torch.cat([getattr(row, name) for row in rows]) for name in rows[0].fields()}
        for name in CONSTANT:
            parts[name] = getattr(self.coefficients, name).expand(len(rows), -1)
        return Coefficients(self.coefficients.model, **parts)

    def missed(self, number: int) -> Box | None:
        """Where the person must be in a frame between two frames that show them, by interpolation."""
        before = max((n for n in self.boxes if n < number), default=None)
        after = min((n for n in self.boxes if n > number), default=None)
        if number in self.boxes or before is None or after is None:
            return None
        share = (number - before) / (after - before)
        start, end = np.array(self.boxes[before]), np.array(self.boxes[after])
        x1, y1, x2, y2 = (1 - share) * start + share * end
        return float(x1), float(y1), float(x2), float(y2)


@dataclass(frozen=True)
class Seen:
    """One face of one frame.

    Attributes:
        face: as it was found.
        prepared: None where it cannot be replaced.
        track: None likewise.
    """

    face: Face
    prepared: Prepared | None = None
    track: Track | None = None


@dataclass(frozen=True)
class Result:
    """One frame: the image ``(1, 3, H, W)``, and how many faces were replaced and redacted."""

    image: Tensor
    replaced: int
    redacted: int


class Reenactment:
    """Streams the frames of one video.

    Args:
        method: the network for images, which draws the first frames.
        clips: the network for clips; without it, the method draws every frame.
        recognizers: a face that one of them still finds in the result is redacted; the first one also tells the people
            of the video apart.
        detect: finds the faces of an image ``(1, 3, H, W)``.
        seed: of the new people.
        strength: as for the method, above 0.
        steps: denoising steps of the network for clips.
    """

    def __init__(
        self,
        method: DiffDeIDMethod,
        clips: Checkpoint | None,
        recognizers: Sequence[FaceRecognizer],
        detect: Callable[[Tensor], Sequence[Face]],
        seed: int = 0,
        strength: float = MAX_STRENGTH,
        steps: int = STEPS,
    ) -> None:
        if clips is not None and (clips.space or clips.model != method.checkpoint.model):
            raise InputError(
                "the second checkpoint was not trained on clips; make one with faceveil train diffdeid-video"
            )
        self._method, self._clips, self._recognizers, self._detect = method, clips, recognizers, detect
        self._seed, self._strength, self._steps = seed, strength, steps
        self._pipeline = None if clips is None else DiffDeIDPipeline(clips.network)
        self.people: list[Person] = []
        self._tracks: list[Track] = []
        self._thumbnail: Tensor | None = None

    def __call__(self, frames: Iterable[Tensor], progress: Progress = silent) -> Iterator[Result]:
        """De-identify frames ``(1, 3, H, W)`` in [0, 1]; each result comes 13 frames after its frame was read."""
        waiting: deque[tuple[int, Tensor, list[Seen], list[Track]]] = deque()
        for number, image in enumerate(frames):
            progress(number, 0, "reading frames")
            seen = self._read(number, image)
            waiting.append((number, image, seen, self._tracks))
            if len(waiting) > RADIUS:
                yield self._draw(*waiting.popleft(), progress)
        while waiting:
            yield self._draw(*waiting.popleft(), progress)

    def _read(self, number: int, image: Tensor) -> list[Seen]:
        if self._scene_changed(image):
            # A new list: frames that wait still need the tracks of their own shot.
            self._tracks = []
        free = [track for track in self._tracks if number - max(track.boxes) <= RADIUS]
        seen = []
        for face in sorted(self._detect(image), key=lambda f: f.area, reverse=True):
            if self._method.unsupported_reason(face) is not None:
                seen.append(Seen(face))
                continue
            embedding = self._recognizers[0].embed(image, face.points)
            prepared = self._method.prepare(View(image, face, embedding))
            if self._method.occlusion_reason(prepared) is not None:
                seen.append(Seen(face))
                continue
            track = max(free, key=lambda t: overlap(t.boxes[max(t.boxes)], face.box), default=None)
            if track is None or overlap(track.boxes[max(track.boxes)], face.box) < MIN_OVERLAP:
                track = self._start(prepared)
                self._tracks.append(track)
            else:
                free.remove(track)
            track.add(number, face.box, prepared.face.coefficients)
            seen.append(Seen(face, prepared, track))
        return seen

    def _scene_changed(self, image: Tensor) -> bool:
        before, self._thumbnail = self._thumbnail, resize(image, _THUMBNAIL, _THUMBNAIL)
        return before is not None and float((before - self._thumbnail).abs().mean()) > CUT

    def _start(self, prepared: Prepared) -> Track:
        """A track whose first frame is de-identified by the network for images."""
        person = self._known(prepared) or self._met(prepared)
        person.embeddings.append(prepared.view.embedding)
        square, drawn = self._method.draw(prepared, person.identity, self._strength)
        mask = paste_mask(prepared.face, drawn, prepared.view.face.points)
        first = torch.lerp(prepared.face.square, square, mask)
        _, coefficients = self._method.deidentified(prepared, person.identity, self._strength)
        return Track(person, first, coefficients)

    def _known(self, prepared: Prepared) -> Person | None:
        judge, own = self._recognizers[0], prepared.view.embedding
        near = [(min(judge.distance(own, e) for e in p.embeddings), i) for i, p in enumerate(self.people)]
        distance, index = min(near, default=(np.inf, -1))
        return self.people[index] if distance < judge.threshold else None

    def _met(self, prepared: Prepared) -> Person:
        identity = self._method.sample_identity([prepared], self._seed + len(self.people))
        self.people.append(Person([], identity))
        return self.people[-1]

    def _draw(self, number: int, image: Tensor, seen: list[Seen], tracks: list[Track], progress: Progress) -> Result:
        result, replaced, redacted = image, 0, 0
        for item in seen:
            changed = None if item.track is None else self._replaced(number, result, item, item.track, progress)
            if changed is None:
                result, redacted = redact(result, item.face)[0], redacted + 1
            else:
                result, replaced = changed, replaced + 1
        for track in tracks:
            box = track.missed(number)
            if box is not None:
                result, redacted = redact(result, Face(box, (), 1.0))[0], redacted + 1
        return Result(result, replaced, redacted)

    def _replaced(self, number: int, image: Tensor, item: Seen, track: Track, progress: Progress) -> Tensor | None:
        """The image with the face redrawn; None where a recognizer still finds the original."""
        prepared = item.prepared
        if prepared is None:
            return None
        view = replace(prepared.view, image=image)
        if self._pipeline is None:
            change = self._method.render(replace(prepared, view=view), track.person.identity, self._strength, progress)
        else:
            change = self._reenacted(number, prepared, image, track, progress)
        changed = image.clone()
        x, y = change.origin
        height, width = change.patch.shape[-2:]
        changed[..., y : y + height, x : x + width] = change.patch
        for recognizer in self._recognizers:
            before, after = (recognizer.embed(i, item.face.points) for i in (prepared.view.image, changed))
            if recognizer.distance(before, after) < recognizer.threshold:
                return None
        return changed

    def _reenacted(self, number: int, prepared: Prepared, image: Tensor, track: Track, progress: Progress) -> Change:
        assert self._clips is not None and self._pipeline is not None
        size = self._clips.network.config.size
        window = track.window(number)
        face, mesh = render_face(self._method.reader.model, window[RADIUS], size)
        standard = self._clips.standardizer.standardize(window)
        conditions = Conditions(
            face, reference_image(resize(track.square, size, size)), torch.zeros(1, 0), standard[None]
        )
        # The same noise in every frame, so that the face does not flicker.
        generator = torch.Generator().manual_seed(track.person.identity.seed)
        square = self._pipeline.sample(conditions, [generator], self._steps, progress=progress)
        points, view = prepared.view.face.points, prepared.face.resized(size)
        return pasted(image, view.transform, square, paste_mask(view, view.wider(mesh).mask, points), points)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return shared / max(areas - shared, 1e-9)
