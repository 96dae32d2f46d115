"""The plan of a video: its tracks and people, as a JSON file that a user can read, edit and render.

What can be edited: ``treat`` of a person or a track (true, false, or pairs of first and last frames); the ``person`` of
a track, to merge or split people; tracks can be removed, and added with ``keyframes``: boxes for some frames, between
which the box moves evenly. Added tracks are redacted.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...faces.face import LANDMARKS, Face, Origin
from ...faces.tracking.track import Sighting, Track
from ...imaging.video import Span, VideoSource
from .scan import Scan

FORMAT = "faceveil.video/1"
DIGESTED = 1 << 20
"""Bytes of the start and of the end of a file that its digest covers: a whole film would take minutes."""
STEPS = 16000
"""Landmarks are stored as whole numbers of this many steps along the longer side of their box."""
_ORIGINS: Mapping[str, Origin] = {"m": "measured", "i": "interpolated", "h": "manual"}
_LETTERS = {name: letter for letter, name in _ORIGINS.items()}


@dataclass(frozen=True)
class PlannedFace:
    """One face of one frame, and the number of its person; None where nobody knows who it is."""

    face: Face
    person: int | None


Limits = tuple[tuple[int, int], ...]
"""First and last frames of the parts of a video in which a face is treated; empty: in all of it."""


@dataclass(frozen=True)
class PlannedTrack:
    """One track, whose face it is, and whether it is treated; where there are ``limits``, only in these frames."""

    track: Track
    person: int | None = None
    treat: bool = True
    limits: Limits = ()


@dataclass(frozen=True)
class VideoPlan:
    """Which faces of a video are treated.

    Attributes:
        digest: of the video's file.
        width, height: of its frames in pixels.
        frames: how many there are in the span.
        rate: frames per second.
        span: the part of the video that the frames are counted in.
        tracks: all of them.
        kept: numbers of people who are not treated.
        limits: of people who are treated in parts of the video only.
    """

    digest: str
    width: int
    height: int
    frames: int
    rate: float
    span: Span = Span()
    tracks: tuple[PlannedTrack, ...] = ()
    kept: frozenset[int] = field(default_factory=frozenset)
    limits: Mapping[int, Limits] = field(default_factory=dict)

    @classmethod
    def of(cls, source: VideoSource, scan: Scan, kept: frozenset[int] = frozenset()) -> VideoPlan:
        """The plan that treats all faces but those of the people in ``kept``."""
        owner = {number: person.number for person in scan.people for number in person.tracks}
        tracks = tuple(PlannedTrack(track, owner.get(track.number)) for track in scan.tracks)
        info = source.info
        rate = float(info.rate)
        return cls(digest_of(source), info.width, info.height, scan.frames, rate, source.span, tracks, kept)

    @property
    def people(self) -> tuple[int, ...]:
        """Numbers of all people."""
        return tuple(sorted({t.person for t in self.tracks if t.person is not None}))

    @property
    def untreated(self) -> int:
        """Number of people, and of tracks that nobody knows, that stay as they are in some frame."""
        left = [t for t in self.tracks if not all(self.is_treated_in(t, i) for i in t.track.sightings)]
        return len({t.person for t in left if t.person is not None}) + sum(t.person is None for t in left)

    def is_treated(self, track: PlannedTrack) -> bool:
        """Whether a track is treated, at least in a part of the video."""
        return track.treat and track.person not in self.kept

    def is_treated_in(self, track: PlannedTrack, frame: int) -> bool:
        """Whether a track is treated in a frame."""
        own = () if track.person is None else self.limits.get(track.person, ())
        both = (track.limits, own)
        return self.is_treated(track) and all(any(a <= frame <= b for a, b in part) for part in both if part)

    def by_frame(self) -> FrameIndex:
        """Quick access to the faces of a frame."""
        return FrameIndex(self)

    def check(self, source: VideoSource) -> None:
        """Refuse another video.

        Raises:
            InputError: the video is not the one that was planned.
        """
        if (source.info.width, source.info.height) != (self.width, self.height) or digest_of(source) != self.digest:
            raise InputError(f"the plan is of another video than {source.name}; plan this one again")

    def listing(self) -> list[str]:
        """A line for each person, and one for the tracks that belong to nobody."""
        lines = [
            f"person {n}: in {self._count(n)} of {self.frames} frames, first at {self._first(n)}"
            + (" (kept)" if n in self.kept else "")
            for n in self.people
        ]
        unknown = sum(t.person is None for t in self.tracks)
        if unknown:
            lines.append(f"{unknown} track{'s' * (unknown != 1)} of faces that nobody knows; these are redacted")
        return lines or ["no face was found"]

    def to_json(self) -> str:
        """As a text that ``from_json`` reads."""
        people = [
            {
                "person": n,
                "treat": _value(n not in self.kept, self.limits.get(n, ())),
                "frames": self._count(n),
                "first_seen": self._first(n),
            }
            for n in self.people
        ]
        tracks = ",\n  ".join(json.dumps(_track_row(t)) for t in self.tracks)
        head = {
            "format": FORMAT,
            "video": {"digest": self.digest, "width": self.width, "height": self.height, "frames": self.frames,
                      "rate": round(self.rate, 4), "start": self.span.start, "end": self.span.end},
        }  # fmt: skip
        parts = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
        rows = ",\n  ".join(map(json.dumps, people))
        return "{" + ",\n".join([*parts, f'"people": [\n  {rows}]', f'"tracks": [\n  {tracks}]']) + "}\n"

    @classmethod
    def from_json(cls, text: str) -> VideoPlan:
        """Read a plan.

        Raises:
            InputError: the text is not JSON, is not a plan of this version, or contains an invalid value.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the video plan is not JSON ({error}); correct it, or plan the video again") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InputError(f"the plan is not of format {FORMAT}; plan the video again")
        try:
            video = document["video"]
            end = video.get("end")
            kept = frozenset(int(row["person"]) for row in document["people"] if not _flag(row))
            frames = int(video["frames"])
            return cls(
                str(video["digest"]),
                int(video["width"]),
                int(video["height"]),
                frames,
                float(video["rate"]),
                Span(float(video.get("start", 0.0)), None if end is None else float(end)),
                tuple(_planned(row, place, frames) for place, row in enumerate(document["tracks"])),
                kept,
                {int(row["person"]): limits for row in document["people"] if (limits := _limits(row))},
            )
        except KeyError as error:
            raise InputError(f"the video plan has an invalid value: {error} is missing; correct it") from None
        except (TypeError, ValueError, AttributeError, OverflowError, zlib.error) as error:
            raise InputError(f"the video plan has an invalid value ({error}); correct it") from None

    def _count(self, person: int) -> int:
        return sum(len(t.track.sightings) for t in self.tracks if t.person == person)

    def _first(self, person: int) -> str:
        seconds = min(t.track.first for t in self.tracks if t.person == person) / self.rate
        return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


class FrameIndex:
    """The treated faces of each frame of a plan."""

    def __init__(self, plan: VideoPlan) -> None:
        self._tracks = [t for t in plan.tracks if plan.is_treated(t)]
        self._by_frame: dict[int, list[int]] = {}
        for place, planned in enumerate(self._tracks):
            for frame in planned.track.sightings:
                if plan.is_treated_in(planned, frame):
                    self._by_frame.setdefault(frame, []).append(place)

    def __getitem__(self, frame: int) -> list[PlannedFace]:
        """Small faces first: they are behind large ones."""
        found = []
        for place in self._by_frame.get(frame, ()):
            planned = self._tracks[place]
            face = planned.track.sightings[frame].face(planned.track.number)
            found.append(PlannedFace(face, planned.person))
        return sorted(found, key=lambda p: p.face.area)


def digest_of(source: VideoSource) -> str:
    """SHA-256 of the size, the start and the end of a video's file."""
    file = source.file
    if isinstance(file, io.BytesIO):
        data = file.getbuffer()
        size, start, end = len(data), bytes(data[:DIGESTED]), bytes(data[-DIGESTED:])
    else:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(DIGESTED)
            opened.seek(max(0, size - DIGESTED))
            end = opened.read(DIGESTED)
    return hashlib.sha256(f"{size}/".encode() + start + end).hexdigest()


def read_plan(path: Path) -> VideoPlan:
    """Read a plan's file.

    Raises:
        InputError: the file is missing, or no plan of a video.
    """
    from ...core.files import read_text

    return VideoPlan.from_json(read_text(path))


def _track_row(planned: PlannedTrack) -> dict[str, Any]:
    track = planned.track
    frames = sorted(track.sightings)
    sightings = [track.sightings[i] for i in frames]
    with_points = [i for i in frames if track.sightings[i].points is not None]
    row: dict[str, Any] = {
        "track": track.number,
        "person": planned.person,
        "treat": _value(planned.treat, planned.limits),
        "first_frame": frames[0],
        "origins": "".join(_LETTERS[s.origin] for s in sightings),
        "scores": [round(float(s.score), 2) for s in sightings],
        "boxes": [[round(float(v), 1) for v in s.box] for s in sightings],
    }
    if with_points:
        steps = [_to_steps(track.sightings[i]) for i in with_points]
        packed = zlib.compress(np.stack(steps).astype("<i2").tobytes(), 9)
        row["landmark_frames"] = _to_runs(with_points)
        row["landmarks"] = base64.b64encode(packed).decode()
    return row


def _flag(row: Mapping[str, Any]) -> bool:
    """Whether a person or a track is treated."""
    value = row.get("treat", True)
    if not isinstance(value, bool | list) or value == []:
        raise ValueError(f"treat is true, false, or pairs of frames, not {json.dumps(value)}")
    return value is not False


def _limits(row: Mapping[str, Any]) -> Limits:
    """The frames that the treatment of a person or a track is limited to."""
    value = row.get("treat", True)
    pairs = value if isinstance(value, list) else []
    whole = (list, tuple)
    good = all(isinstance(p, whole) and len(p) == 2 and all(type(i) is int for i in p) and p[0] <= p[1] for p in pairs)
    if not good:
        raise ValueError(f"treat has pairs of a first and a last frame, such as [[0, 99]], not {json.dumps(value)}")
    return tuple((first, last) for first, last in pairs)


def _value(treat: bool, limits: Limits) -> bool | Limits:
    """What the plan's file says of a person or a track."""
    return limits if treat and limits else treat


def _planned(row: Mapping[str, Any], place: int, count: int) -> PlannedTrack:
    person = None if row.get("person") is None else int(row["person"])
    if person is not None and person < 0:
        raise ValueError(f"a person's number is 0 or more, not {person}")
    number, treat, limits = int(row.get("track", place)), _flag(row), _limits(row)
    if "keyframes" in row and "boxes" not in row:
        return PlannedTrack(Track(number, _between(row["keyframes"], number, count)), person, treat, limits)
    first, sightings = int(row["first_frame"]), dict[int, Sighting]()
    for i, (letter, score, box) in enumerate(zip(row["origins"], row["scores"], row["boxes"], strict=True)):
        sightings[first + i] = Sighting(_box(box), float(score), None, _ORIGINS[letter])
    track = Track(number, sightings)
    if "landmarks" in row:
        frames = [i for a, b in row["landmark_frames"] for i in range(int(a), int(b) + 1)]
        values = np.frombuffer(zlib.decompress(base64.b64decode(row["landmarks"])), "<i2")
        for i, steps in zip(frames, values.reshape(len(frames), LANDMARKS, 2), strict=True):
            track.place(i, points=_from_steps(sightings[i].box, steps))
    if "keyframes" in row:
        _correct(track, _between(row["keyframes"], number, count))
    return PlannedTrack(track, person, treat, limits)


def _correct(track: Track, drawn: Mapping[int, Sighting]) -> None:
    """Replace the sightings of a track by those that were drawn by hand, and fill the gap between the two."""
    before = track.first, track.last
    for i, sighting in drawn.items():
        track.add(i, sighting)
    for a, b in ((before[1], min(drawn)), (max(drawn), before[0])):
        gap = _drawn({i: track.sightings[i].box for i in (a, b)})
        for i in range(a + 1, b):
            track.add(i, gap[i])


def _between(keyframes: Mapping[str, Sequence[float]], track: int, count: int) -> dict[int, Sighting]:
    """The sightings of a track that was drawn by hand."""
    known = {int(frame): _box(box) for frame, box in keyframes.items()}
    frames = sorted(known)
    outside = [i for i in frames if not 0 <= i < count]
    if outside:
        raise ValueError(f"track {track} has a keyframe {outside[0]}, but the video has frames 0 to {count - 1}")
    if not known:
        raise ValueError("a track without keyframes")
    return _drawn(known)


def _drawn(known: Mapping[int, np.ndarray]) -> dict[int, Sighting]:
    """Sightings with boxes ``(4,)`` that are known in some frames, and interpolated between them."""
    frames = sorted(known)
    boxes = dict(known)
    for a, b in pairwise(frames):
        boxes |= {i: known[a] + (known[b] - known[a]) * ((i - a) / (b - a)) for i in range(a + 1, b)}
    return {i: Sighting(boxes[i].astype(np.float32), 1.0, None, "manual") for i in sorted(boxes)}


def _box(values: Sequence[float]) -> np.ndarray:
    box = np.array([float(v) for v in values], np.float32)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise ValueError(f"a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2, not {list(values)}")
    return box


def _to_steps(sighting: Sighting) -> np.ndarray:
    assert sighting.points is not None
    # Of the rounded box, as it is read again.
    box = np.round(sighting.box.astype(np.float64), 1)
    steps = (sighting.points - (box[:2] + box[2:]) / 2) / (box[2:] - box[:2]).max() * STEPS
    return np.asarray(np.clip(np.round(steps), -32768, 32767))


def _from_steps(box: np.ndarray, steps: np.ndarray) -> np.ndarray:
    exact = box.astype(np.float64)
    points = (exact[:2] + exact[2:]) / 2 + steps.astype(np.float64) * (exact[2:] - exact[:2]).max() / STEPS
    return points.astype(np.float32)


def _to_runs(frames: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for i in frames:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return runs
