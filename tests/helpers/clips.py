"""Synthetic clips with known faces: portraits moved in 3D, pans, zooms, an occluder, a cut, a face that leaves and
returns, motion blur, two people who cross, a rolling head, a dark scene."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from faceveil.pipelines.core.threads import same_priority
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_uint8

TIME_BASE = Fraction(1, 12800)
MIN_SIZE = 14.0
"""Pixels of the smallest face that counts as visible."""
MIN_VISIBLE = 0.5
"""Share of a face that must be in the frame and unoccluded."""


@dataclass(frozen=True)
class Card:
    """A portrait, and its face's box ``(4,)`` and landmarks ``(68, 2)`` in pixels."""

    name: str
    pixels: np.ndarray
    box: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Truth:
    """A face in a frame: who, where, and how much of it can be seen (0 to 1)."""

    person: int
    box: np.ndarray
    points: np.ndarray
    visible: float

    @property
    def counts(self) -> bool:
        size = float((self.box[2:] - self.box[:2]).min())
        return self.visible >= MIN_VISIBLE and size >= MIN_SIZE


@dataclass(frozen=True)
class Pose:
    """Where a portrait is: center and size as a share of the frame's height, angles in degrees."""

    x: float
    y: float
    size: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True)
class Shot:
    """One scene: the person and pose of each card at time 0 to 1, an occluder, blur in frames, and light."""

    frames: int
    people: Sequence[tuple[int, Callable[[float], Pose]]]
    occluder: Callable[[float], float] | None = None
    blur: int = 1
    light: float = 1.0


def cards(paths: Sequence[Path]) -> list[Card]:
    """The portraits in which one face is found."""
    found = []
    for path in paths:
        image = load_image(path).pixels
        faces = [f for f in detect_faces(image) if f.landmarks]
        if len(faces) == 1:
            found.append(Card(path.stem, to_uint8(image), np.array(faces[0].box), faces[0].points))
    return found


def wave(t: float, turns: float = 1.0) -> float:
    return math.sin(2 * math.pi * turns * t)


def bench(length: int = 90) -> list[Shot]:
    """The scenes of the test bench, with ``length`` frames each; at least 5 people are needed."""
    return [
        Shot(length, [(0, lambda t: Pose(0.9 + 0.3 * wave(t), 0.5, 0.9, 25 * wave(t, 2), 10 * wave(t, 3)))]),
        Shot(length, [(0, lambda t: Pose(0.9, 0.5 + 0.02 * wave(t), 0.8, 10 * wave(t)))], lambda t: -0.3 + 2.4 * t),
        Shot(length, [(1, lambda t: Pose(0.5 + 0.8 * t, 0.5, 0.35 + 0.9 * t, 15 * wave(t)))]),
        Shot(length, [(2, lambda t: Pose(0.9 + 0.35 * wave(t, 3), 0.5, 0.7))], blur=6),
        Shot(length, [(3, lambda t: Pose(0.9 + 1.6 * math.sin(math.pi * t) ** 2, 0.5, 0.8, -20 * wave(t)))]),
        Shot(
            length,
            [
                (1, lambda t: Pose(0.25 + 1.3 * t, 0.5, 0.75)),
                (4, lambda t: Pose(1.55 - 1.3 * t, 0.52, 0.7)),
            ],
        ),
        Shot(length, [(2, lambda t: Pose(0.9, 0.5, 0.8, roll=75 * wave(t)))]),
        Shot(length, [(0, lambda t: Pose(0.6 + 0.6 * t, 0.4, 0.16)), (3, lambda t: Pose(1.3 - 0.3 * t, 0.6, 0.2))]),
        Shot(length, [(4, lambda t: Pose(0.9 + 0.2 * wave(t), 0.5, 0.7, 20 * wave(t)))], light=0.25),
    ]


def frames_of(
    shots: Sequence[Shot], people: Sequence[Card], width: int, height: int, seed: int = 0
) -> Iterator[tuple[np.ndarray, list[Truth]]]:
    """The frames ``(H, W, 3)``, uint8, and the faces in each."""
    rng = np.random.default_rng(seed)
    for number, shot in enumerate(shots):
        backdrop = _backdrop(rng, width, height)
        for i in range(shot.frames):
            parts, truth = [], list[Truth]()
            for sub in range(shot.blur):
                t = (i + 0.6 * sub / shot.blur) / shot.frames
                frame = np.roll(backdrop, round(40 * t) + 7 * number, 1).copy()
                truth = _draw(frame, shot, people, t)
                parts.append(frame.astype(np.float32))
            mixed = np.mean(parts, 0) * shot.light + rng.normal(0, 2.0, (height, width, 1))
            yield mixed.clip(0, 255).astype(np.uint8), truth


def _draw(frame: np.ndarray, shot: Shot, people: Sequence[Card], t: float) -> list[Truth]:
    height, width = frame.shape[:2]
    seen = np.full((height, width), -1, np.int16)
    placed = []
    for person, motion in shot.people:
        card, h = people[person], _homography(people[person], motion(t), height)
        side = card.pixels.shape[0]
        warped = cv2.warpPerspective(card.pixels, h, (width, height), flags=cv2.INTER_AREA)
        yy, xx = np.mgrid[0:side, 0:side] / side - 0.5
        soft = np.clip((0.5 - np.hypot(xx, yy)) / 0.04, 0, 1).astype(np.float32)
        alpha = cv2.warpPerspective(soft, h, (width, height))[..., None]
        frame[:] = (frame * (1 - alpha) + warped * alpha).astype(np.uint8)
        seen[alpha[..., 0] > 0.5] = person
        placed.append((person, card, h))
    if shot.occluder is not None:
        x = round(shot.occluder(t) * height)
        left, right = max(0, x), min(width, x + round(0.3 * height))
        if right > left:
            frame[:, left:right], seen[:, left:right] = (60, 90, 70), -2
    found = []
    for person, card, h in placed:
        points = _moved(card.points, h)
        x1, y1, x2, y2 = card.box
        corners = _moved(np.array([[x1, y1], [x2, y1], [x1, y2], [x2, y2]]), h)
        box = np.concatenate([corners.min(0), corners.max(0)])
        inside = ellipse(points, height, width)
        whole = max(_hull_area(points), 1.0)
        found.append(Truth(person, box, points, float(((seen == person) & inside).sum()) / whole))
    return found


def ellipse(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels ``(H, W)`` within the hull of the landmarks: the inner face."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.float32)).round().astype(np.int32), 1)
    return mask > 0


def _hull_area(points: np.ndarray) -> float:
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.float32))))


def _moved(points: np.ndarray, h: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(points[None].astype(np.float64), h)[0]


def _homography(card: Card, pose: Pose, height: int) -> np.ndarray:
    """From the card's pixels to the frame's: a square plane at distance 3, rotated about its center."""
    yaw, pitch, roll = (math.radians(v) for v in (pose.yaw, pose.pitch, pose.roll))
    ry = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    rx = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    rz = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    rotation, side = rz @ rx @ ry, card.pixels.shape[0]
    plane = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]]) @ rotation.T
    projected = plane[:, :2] * 3 / (3 + plane[:, 2:])
    target = (projected * pose.size + [pose.x, pose.y]) * height
    source = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    return cv2.getPerspectiveTransform(source, target.astype(np.float32))


def _backdrop(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    coarse = rng.integers(60, 200, (4, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray] | Iterator[np.ndarray],
    rate: int = 25,
    variable: bool = False,
    sound: bool = True,
    codec: str = "libx264",
    layout: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: bool = True,
) -> list[int]:
    """Write a video with sound, chapters and tags; returns the times of the frames in units of ``TIME_BASE``."""
    times, now, stream, voice = [], 0, None, None
    with av.open(str(path), "w") as out:
        if tags:
            out.metadata.update({"title": "SECRET-TITLE", "location": "+48.1234+011.5678/", "artist": "SECRET-ARTIST"})
        for i, pixels in enumerate(frames):
            if stream is None:
                stream = out.add_stream(codec, rate=rate, options=options or {"crf": "16"})
                stream.height, stream.width, stream.pix_fmt = pixels.shape[0], pixels.shape[1], layout
                stream.time_base = stream.codec_context.time_base = TIME_BASE
                if sound:
                    voice = out.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000, layout="mono")
                    voice.metadata["title"] = "SECRET-SOUND"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = now, TIME_BASE
            times.append(now)
            now += int(1 / (rate * TIME_BASE)) + (97 * (i % 4) if variable else 0)
            with same_priority():
                packets = stream.encode(frame)
            out.mux(packets)
        assert stream is not None
        if voice is not None:
            _write_sound(out, voice, float(now * TIME_BASE))
        out.mux(stream.encode())
    return times


def _write_sound(out: av.container.OutputContainer, voice: av.AudioStream, seconds: float) -> None:
    samples = (np.sin(np.arange(int(48000 * seconds)) / 17) * 6000).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.rate, frame.pts = 48000, 0
    out.mux(voice.encode(frame))
    out.mux(voice.encode())


def rotate_tag(path: Path, quarter_turns: int) -> None:
    """Write a rotation into the track header of an MP4 file, as phones do."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4
    version = data[place]
    matrix = place + 4 + (32 if version else 20) + 16
    c, s = round(math.cos(quarter_turns * math.pi / 2)), round(math.sin(quarter_turns * math.pi / 2))
    values = [c << 16, s << 16, 0, -s << 16, c << 16, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)
