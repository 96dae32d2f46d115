"""No frame with a face is left out: late detections, gaps, occluders, crossing people, cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from clips import Card, Pose, Shot, Truth, frames_of, wave
from faceveil.pipelines.faces.detectors import Detection, Detector, open_detector
from faceveil.pipelines.faces.face import MIRROR, Faces
from faceveil.pipelines.faces.tracking.finder import FaceFinder, iou, measure
from faceveil.pipelines.faces.tracking.flow import follow
from faceveil.pipelines.faces.tracking.scenes import Scenes
from faceveil.pipelines.faces.tracking.smooth import close_gaps, finish, hide, parabolas
from faceveil.pipelines.faces.tracking.track import Sighting, Track
from faceveil.pipelines.faces.tracking.tracker import Tracker
from faceveil.pipelines.imaging.uint8 import to_uint8
from torch import Tensor

RATE = 25.0
SIZE = (480, 270)


@pytest.fixture(scope="module")
def card(portrait: Tensor, portrait_faces: Faces) -> Card:
    face = portrait_faces[0]
    return Card("astronaut", to_uint8(portrait), np.array(face.box), face.points)


class Blinking:
    """A detector that finds nothing in some of its calls for a whole frame; second looks find nothing either."""

    def __init__(self, blind: Callable[[int], bool]) -> None:
        self._detector, self._blind, self.frame = open_detector(), blind, -1

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]:
        return [] if self._blind(self.frame) else self._detector(image, threshold)


def tracked(
    shots: Sequence[Shot], people: Sequence[Card], blind: Callable[[int], bool] = lambda _: False
) -> tuple[Tracker, list[list[Truth]]]:
    detector = Blinking(blind)
    as_detector: Detector = detector
    finder, truth = FaceFinder(as_detector), []
    tracker, scenes = Tracker(finder, RATE, measure), Scenes(finder)
    for pixels, faces in frames_of(shots, people, *SIZE):
        detector.frame += 1
        tracker.add(pixels, scenes.next(pixels))
        truth.append(faces)
    tracker.end_scene()
    return tracker, truth


def missed(tracker: Tracker, truth: list[list[Truth]]) -> list[int]:
    """Frames with a visible face that no track is on."""
    found = []
    for number, faces in enumerate(truth):
        boxes = [t.sightings[number].box for t in tracker.tracks if number in t.sightings]
        if any(f.counts and all(iou(f.box, box) < 0.3 and covered(f.box, box) < 0.6 for box in boxes) for f in faces):
            found.append(number)
    return found


def covered(face: np.ndarray, box: np.ndarray) -> float:
    """Share of a face's box that another box covers."""
    size = np.minimum(face[2:], box[2:]) - np.maximum(face[:2], box[:2])
    return float(np.prod(np.maximum(size, 0)) / np.prod(face[2:] - face[:2]))


def still(t: float) -> Pose:
    return Pose(0.9, 0.5, 0.9)


def moving(t: float) -> Pose:
    return Pose(0.7 + 0.4 * t, 0.5, 0.8, 15 * wave(t))


def test_a_face_is_followed(card: Card) -> None:
    tracker, truth = tracked([Shot(20, [(0, moving)])], [card])
    assert missed(tracker, truth) == []
    assert len(tracker.tracks) == 1
    track = tracker.tracks[0]
    errors = [np.linalg.norm(track.sightings[i].points - truth[i][0].points, axis=1).mean() for i in range(20)]
    eyes = np.linalg.norm(truth[0][0].points[36:42].mean(0) - truth[0][0].points[42:48].mean(0))
    assert np.median(errors) < 0.06 * eyes


@pytest.mark.parametrize("blind", [range(0, 7), range(8, 14), range(14, 20), range(1, 20, 2)], ids=str)
def test_frames_without_a_detection_are_filled(card: Card, blind: range) -> None:
    tracker, truth = tracked([Shot(20, [(0, moving)])], [card], lambda frame: frame in blind)
    assert missed(tracker, truth) == []
    assert {i for i in tracker.tracks[0].sightings if not tracker.tracks[0].sightings[i].is_measured} >= set(
        i for i in blind if i in tracker.tracks[0].sightings
    )


def test_a_lost_face_is_not_held_forever(card: Card) -> None:
    tracker, _ = tracked([Shot(60, [(0, still)])], [card], lambda frame: frame > 5)
    assert 20 < tracker.tracks[0].last < 45


class Shallow(FaceFinder):
    """Finds faces only by the thorough search."""

    def quick(self, small: np.ndarray, scale: float) -> list[Detection]:
        return []


@pytest.mark.parametrize("frames", [60, 45])
@pytest.mark.parametrize("cut", [False, True])
def test_what_only_the_thorough_search_sees_is_followed_back_to_the_one_before(
    card: Card, frames: int, cut: bool
) -> None:
    """It comes in shortly after the first; the next one comes two seconds later, or where the scene ends."""

    def late(t: float) -> Pose:
        return Pose(0.9 + 1.6 * max(0.0, 1 - t * frames / 10), 0.5, 0.8)

    shots = [Shot(frames, [(0, late)]), *([Shot(3, [(1, lambda t: Pose(0.5, 0.5, 0.4))])] if cut else [])]
    finder, truth = Shallow(open_detector()), list[list[Truth]]()
    tracker, scenes = Tracker(finder, RATE), Scenes(finder)
    for pixels, faces in frames_of(shots, [card, mirrored(card)], *SIZE):
        tracker.add(pixels, scenes.next(pixels))
        truth.append(faces)
    tracker.end_scene()
    since = next(i for i, faces in enumerate(truth) if faces[0].counts)
    assert since < 12 and min(t.measured()[0] for t in tracker.tracks) == min(50, frames - 1)
    assert tracker.cuts == [frames] * cut
    assert missed(tracker, truth) == []


def mirrored(card: Card) -> Card:
    width = card.pixels.shape[1]
    x1, y1, x2, y2 = card.box
    points = (card.points * [-1, 1] + [width - 1, 0])[MIRROR]
    return Card("mirrored", card.pixels[:, ::-1].copy(), np.array([width - x2, y1, width - x1, y2]), points)


def entering(t: float) -> Pose:
    """Upside down: only the thorough search is sure of it."""
    return Pose(min(0.9, 3 * t - 0.4), 0.5, 0.5, roll=170)


def upside_down(t: float) -> Pose:
    return Pose(0.9, 0.5, 0.5, roll=170)


def test_a_head_upside_down_that_comes_in_between_two_thorough_searches(card: Card) -> None:
    """What the quick search is not sure of must not keep it from being followed back."""
    tracker, truth = tracked([Shot(90, [(0, entering)])], [card])
    assert missed(tracker, truth) == []


def test_a_scene_can_begin_right_after_a_cut(card: Card) -> None:
    shots = [Shot(12, [(1, still)]), Shot(1, [(1, lambda t: Pose(0.5, 0.5, 0.4))]), Shot(12, [(0, upside_down)])]
    tracker, truth = tracked(shots, [card, mirrored(card)])
    assert missed(tracker, truth) == []
    assert all(t.last < 13 or t.first >= 13 for t in tracker.tracks)


def test_a_cut_ends_all_tracks(card: Card) -> None:
    other = Card("flipped", card.pixels[:, ::-1].copy(), card.box, card.points)
    shots = [Shot(8, [(0, still)]), Shot(8, [(1, lambda t: Pose(0.5, 0.5, 0.6))])]
    tracker, _ = tracked(shots, [card, other])
    assert tracker.cuts == [8]
    assert all(t.last < 8 or t.first >= 8 for t in tracker.tracks)


def test_crossing_people_get_new_tracks(card: Card) -> None:
    shots = [Shot(40, [(0, lambda t: Pose(0.3 + 1.1 * t, 0.5, 0.7)), (1, lambda t: Pose(1.4 - 1.1 * t, 0.5, 0.7))])]
    tracker, truth = tracked(shots, [card, Card("b", card.pixels, card.box, card.points)])
    assert missed(tracker, truth) == []
    for track in tracker.tracks:
        measured = track.measured()
        owners = set()
        for i in measured:
            distances = [np.linalg.norm(track.sightings[i].center - (f.box[:2] + f.box[2:]) / 2) for f in truth[i]]
            apart = abs(truth[i][0].box[0] - truth[i][1].box[0]) > 40
            if apart:
                owners.add(int(np.argmin(distances)))
        assert len(owners) <= 1, "a track went over to the other person"


def test_flow_follows_a_shift() -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (40, 60)).astype(np.uint8), (480, 320), interpolation=cv2.INTER_CUBIC)
    box = np.array([200.0, 100.0, 260.0, 180.0], np.float32)
    moved = follow(image, np.roll(image, (5, 9), (0, 1)), box)
    assert moved is not None
    assert moved == pytest.approx(box + [9, 5, 9, 5], abs=0.5)
    assert follow(image, rng.integers(0, 255, image.shape).astype(np.uint8), box) is None
    assert follow(image, image, np.array([10.0, 10.0, 11.0, 11.0], np.float32)) is None


def line(count: int, jitter: float = 0.0) -> Track:
    """A face that moves evenly."""
    rng = np.random.default_rng(1)
    shape = rng.uniform(0, 50, (68, 2))
    track = Track(0)
    for i in range(count):
        noise = rng.normal(0, jitter, (68, 2))
        box = np.array([3 * i, i, 3 * i + 50, i + 60], np.float32)
        track.sightings[i] = Sighting(box, 0.9, (shape + [3 * i, i] + noise).astype(np.float32))
    return track


def test_smoothing_has_no_lag() -> None:
    track, exact = line(30), line(30)
    finish(track, RATE)
    for i in range(30):
        assert track.sightings[i].points == pytest.approx(exact.sightings[i].points, abs=0.05)
    noisy = line(60, jitter=1.0)
    before = np.stack([noisy.sightings[i].points - exact_at(i) for i in range(60)])
    finish(noisy, RATE)
    after = np.stack([noisy.sightings[i].points - exact_at(i) for i in range(60)])
    assert after.std() < 0.75 * before.std()


def exact_at(i: int) -> np.ndarray:
    shape = np.random.default_rng(1).uniform(0, 50, (68, 2))
    return shape + [3 * i, i]


def test_short_gaps_get_landmarks_and_long_ones_do_not() -> None:
    track = line(30)
    for i in (*range(5, 8), *range(15, 25)):
        track.sightings[i] = Sighting(track.sightings[i].box, 0.0, None, "interpolated")
    close_gaps(track, 5)
    assert all(track.sightings[i].points is not None for i in range(15))
    assert all(track.sightings[i].points is None for i in range(15, 25))
    assert track.sightings[6].points == pytest.approx(line(30).sightings[6].points, abs=0.05)


def test_landmarks_of_a_hidden_face_are_dropped() -> None:
    track = line(20)
    track.place(10, score=0.6)
    hide(track)
    assert track.sightings[10].points is None
    close_gaps(track, 5)
    # A detection with a low score is no gap: the face is there, and hidden.
    assert track.sightings[10].points is None
    assert track.sightings[10].face(0).landmarks == ()
    assert track.sightings[9].face(3).track == 3


@pytest.mark.parametrize(("count", "window"), [(5, 5), (6, 5), (40, 7)])
def test_parabolas_are_the_filter_of_savitzky_and_golay(count: int, window: int) -> None:
    from scipy.signal import savgol_filter

    values = np.random.default_rng(count).normal(size=(count, 68, 2)).astype(np.float32)
    expected = savgol_filter(values.astype(np.float64), window, 2, axis=0, mode="interp")
    assert parabolas(values, window) == pytest.approx(expected, abs=1e-9)
