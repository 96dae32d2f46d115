"""De-identify video by reenactment (section 3.4).

The first frame of a person in a shot is de-identified by the network for images; it gives identity, texture and light.
In each later frame, expression, pose and gaze come from the frame. The network for clips draws it from the first frame,
the rendered face, and the coefficients of 13 frames before and after. Without such a network, the network for images
draws each frame with the same person and noise.

Frames stream through: at most 14 are in memory. Where the scene changes, or a person comes back, their first frame is
de-identified again, as the same new person. What cannot be replaced, or still resembles the original, is redacted, and
so are the places where a face must be although no detector found it (``presence``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

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
from ..base import MAX_STRENGTH, Change, StreamedFrame, View, pasted
from .clips import CONSTANT, RADIUS
from .conditions import paste_mask, reference_image, render_face
from .method import DiffDeIDMethod, Prepared
from .network import Conditions
from .people import NewPerson, with_geometry
from .pipeline import STEPS, Checkpoint, DiffDeIDPipeline
from .presence import Presence, overlap

CUT = 0.18
"""Mean absolute difference of two frames, shrunk to 32 px, above which the scene has changed."""
MIN_OVERLAP = 0.2
"""Smallest intersection over union of a face's boxes in two frames that follow each other."""
MAX_EMBEDDINGS = 8
"""Embeddings that are kept of a person."""
_THUMBNAIL = 32


@dataclass
class Person:
    """One person of the video: how the recognizer knows them, and whom they become.

    Attributes:
        embeddings: of the untouched face in the first frames of shots, ``(D,)`` each.
        new: the new person, the same in all frames.
        seed: of the noise.
    """

    embeddings: list[np.ndarray]
    new: NewPerson
    seed: int


@dataclass
class Track:
    """One person in one shot.

    Attributes:
        person: who it is.
        square: the de-identified first frame, ``(1, 3, S, S)`` in [0, 1].
        coefficients: of the de-identified first frame: its identity, texture and light stay.
        box: in the last frame.
        frames: frame number to p, for the frames that are still needed.
    """

    person: Person
    square: Tensor
    coefficients: Coefficients
    box: Box = (0.0, 0.0, 0.0, 0.0)
    frames: dict[int, Coefficients] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Number of the last frame."""
        return max(self.frames)

    def add(self, number: int, box: Box, coefficients: Coefficients) -> None:
        """Remember a frame, and forget those that no window reaches."""
        self.box, self.frames[number] = box, coefficients
        for old in [n for n in self.frames if n < number - 3 * RADIUS]:
            del self.frames[old]

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
class Waiting:
    """A frame that was read, but not drawn."""

    number: int
    image: Tensor
    seen: list[Seen]


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
        self._presence = Presence()
        self._thumbnail: Tensor | None = None

    def __call__(self, frames: Iterable[Tensor], progress: Progress = silent) -> Iterator[StreamedFrame]:
        """De-identify frames ``(1, 3, H, W)`` in [0, 1]; each result comes 13 frames after its frame was read."""
        waiting: deque[Waiting] = deque()
        for number, image in enumerate(frames):
            progress(number, 0, "reading frames")
            waiting.append(Waiting(number, image, self._read(number, image)))
            if len(waiting) > RADIUS:
                yield self._draw(waiting.popleft(), progress)
        while waiting:
            yield self._draw(waiting.popleft(), progress)

    def _read(self, number: int, image: Tensor) -> list[Seen]:
        cut = self._scene_changed(image)
        if cut:
            self._tracks = []
        self._tracks = [track for track in self._tracks if number - track.last <= RADIUS]
        free = list(self._tracks)
        faces = sorted(self._detect(image), key=lambda f: f.area, reverse=True)
        self._presence.add(number, [face.box for face in faces], cut)
        seen = []
        for face in faces:
            prepared = self._prepared(image, face)
            if prepared is None:
                seen.append(Seen(face))
                continue
            track = max(free, key=lambda t: overlap(t.box, face.box), default=None)
            if track is None or overlap(track.box, face.box) < MIN_OVERLAP:
                track = self._start(prepared)
                self._tracks.append(track)
            else:
                free.remove(track)
            track.add(number, face.box, prepared.face.coefficients)
            seen.append(Seen(face, prepared, track))
        return seen

    def _prepared(self, image: Tensor, face: Face) -> Prepared | None:
        """The analyzed face; None where it cannot be replaced."""
        if self._method.unsupported_reason(face) is not None:
            return None
        embedding = self._recognizers[0].embed(image, face.points)
        prepared = self._method.prepare(View(image, face, embedding))
        return prepared if self._method.occlusion_reason(prepared) is None else None

    def _scene_changed(self, image: Tensor) -> bool:
        before, self._thumbnail = self._thumbnail, resize(image, _THUMBNAIL, _THUMBNAIL)
        return before is not None and float((before - self._thumbnail).abs().mean()) > CUT

    def _start(self, prepared: Prepared) -> Track:
        """A track whose first frame is de-identified by the network for images."""
        person = self._known(prepared) or self._met(prepared)
        person.embeddings = [*person.embeddings, prepared.view.embedding][-MAX_EMBEDDINGS:]
        square, drawn = self._method.draw(prepared, person.new, person.seed)
        mask = paste_mask(prepared.face, drawn, prepared.view.face.points)
        first = torch.lerp(prepared.face.square, square, mask)
        return Track(person, first, with_geometry(prepared.face, person.new.alpha))

    def _known(self, prepared: Prepared) -> Person | None:
        judge, own = self._recognizers[0], prepared.view.embedding
        near = [(min(judge.distance(own, e) for e in p.embeddings), i) for i, p in enumerate(self.people)]
        distance, index = min(near, default=(np.inf, -1))
        return self.people[index] if distance < judge.threshold else None

    def _met(self, prepared: Prepared) -> Person:
        seed = self._seed + len(self.people)
        identity = self._method.sample_identity([prepared], seed)
        self.people.append(Person([], self._method.person(prepared, identity, self._strength), seed))
        return self.people[-1]

    def _draw(self, frame: Waiting, progress: Progress) -> StreamedFrame:
        result, replaced, redacted = frame.image, 0, 0
        for item in frame.seen:
            changed = self._replaced(frame.number, result, item, progress)
            if changed is None:
                result, redacted = redact(result, item.face)[0], redacted + 1
            else:
                result, replaced = changed, replaced + 1
        for box in self._presence.missed(frame.number):
            result, redacted = redact(result, Face(box, (), 1.0))[0], redacted + 1
        return StreamedFrame(result, replaced, redacted)

    def _replaced(self, number: int, image: Tensor, item: Seen, progress: Progress) -> Tensor | None:
        """The image with the face redrawn; None where it cannot be, or a recognizer still finds the original."""
        prepared, track = item.prepared, item.track
        if prepared is None or track is None:
            return None
        if self._pipeline is None:
            square, drawn = self._method.draw(prepared, track.person.new, track.person.seed, progress)
            mask = paste_mask(prepared.face, drawn, item.face.points)
            change = pasted(image, prepared.face.transform, square, mask, item.face.points)
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
        generator = torch.Generator().manual_seed(track.person.seed)
        square = self._pipeline.sample(conditions, [generator], self._steps, progress=progress)
        points, view = prepared.view.face.points, prepared.face.resized(size)
        return pasted(image, view.transform, square, paste_mask(view, view.wider(mesh).mask, points), points)
