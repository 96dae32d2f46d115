"""Videos from the file to the file: everybody is treated in every frame, and the plan can be edited."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import Card, Pose, Shot, Truth, ellipse, frames_of, wave, write_clip
from faceveil.pipelines.core.errors import InputError, PolicyStop
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.select import Selection
from faceveil.pipelines.imaging.uint8 import to_pillow, to_tensor, to_uint8
from faceveil.pipelines.imaging.video import Span, VideoSource
from faceveil.pipelines.imaging.video_write import VideoFormat
from faceveil.pipelines.jobs.photo import anonymize
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.jobs.video.job import VideoJob
from faceveil.pipelines.jobs.video.plan import VideoPlan
from faceveil.pipelines.methods.appearance.spec import AppearanceOptions
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from torch import Tensor

SIZE = (480, 270)
QUICK = AppearanceOptions(search=1)
FRAMES = 14


@pytest.fixture(scope="module")
def people(portrait: Tensor) -> list[Card]:
    """The portrait, and two other people on it."""
    found = []
    for seed in (None, 3, 12):
        image = portrait if seed is None else anonymize(to_pillow(portrait), seed=seed).pixels
        face = detect_faces(image)[0]
        found.append(Card(str(seed), to_uint8(image), np.array(face.box), face.points))
    return found


def moving(t: float) -> Pose:
    return Pose(0.8 + 0.2 * t, 0.5, 0.95, 10 * wave(t))


@pytest.fixture(scope="module")
def clip(people: list[Card], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Truth]]]:
    """One person, a cut, another person, a cut, the first person again."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    shots = [
        Shot(FRAMES, [(0, moving)]),
        Shot(FRAMES, [(2, lambda t: Pose(1.0 - 0.3 * t, 0.5, 0.95))]),
        Shot(FRAMES, [(0, lambda t: Pose(1.1, 0.5 + 0.05 * wave(t), 0.9))]),
    ]
    truth: list[list[Truth]] = []

    def drawn():
        for pixels, faces in frames_of(shots, people, *SIZE):
            truth.append(faces)
            yield pixels

    write_clip(path, drawn(), variable=True)
    return path, truth


@pytest.fixture(scope="module")
def planned(clip: tuple[Path, list[list[Truth]]]):
    return VideoJob(Settings()).plan(VideoSource(clip[0]))


def pixels(path: Path) -> list[np.ndarray]:
    return [f.pixels for f in VideoSource(path).frames()]


def test_people_are_known_again_after_a_cut(planned) -> None:
    plan, people = planned
    owners = {t.track.first: t.person for t in plan.tracks if t.person is not None}
    assert owners[0] == owners[2 * FRAMES] != owners[FRAMES]
    assert len(people) == 2
    assert plan.frames == 3 * FRAMES


def test_people_who_are_small_in_all_frames_are_kept(clip, planned, tmp_path: Path) -> None:
    path, _ = clip
    plan, _ = planned
    sizes: dict[int | None, float] = {}
    for planned_track in plan.tracks:
        largest = max(s.size for s in planned_track.track.sightings.values())
        sizes[planned_track.person] = max(largest, sizes.get(planned_track.person, 0.0))
    small, large = sorted(sizes.values())[0], sorted(sizes.values())[-1]
    settings = Settings(method="solid", selection=Selection(min_size=(small + large) / 2))
    report = VideoJob(settings).run(VideoSource(path), tmp_path / "out.mp4")
    assert report.kept >= 1
    chosen, _ = VideoJob(settings).plan(VideoSource(path))
    treated = {t.person for t in chosen.tracks if chosen.is_treated(t)}
    assert treated == {person for person, size in sizes.items() if size >= (small + large) / 2} != set(sizes)


def test_redaction_leaves_no_face(clip, tmp_path: Path) -> None:
    path, truth = clip
    report = VideoJob(Settings(method="solid")).run(VideoSource(path), tmp_path / "out.mp4")
    assert report.safe and report.frames == len(truth)
    for faces, before, after in zip(truth, pixels(path), pixels(tmp_path / "out.mp4"), strict=True):
        for face in faces:
            inside = ellipse(face.points, *before.shape[:2])
            changed = np.abs(before.astype(int) - after)[inside].max(1) > 12
            assert changed.mean() > 0.7


def test_each_person_has_one_new_face(clip, planned, tmp_path: Path) -> None:
    path, truth = clip
    plan, people = planned
    job = VideoJob(Settings(), options=AppearanceOptions(search=6), processes=1)
    report = job.render(VideoSource(path), plan, tmp_path / "out.mp4", people)
    assert report.safe
    assert report.count("replaced") > 2 * FRAMES
    recognizer = built_in_recognizers()[0]
    shown: dict[int, list[np.ndarray]] = {}
    originals: dict[int, list[np.ndarray]] = {}
    for number, (faces, before, after) in enumerate(
        zip(truth, pixels(path), pixels(tmp_path / "out.mp4"), strict=True)
    ):
        if number % 4:
            continue
        for face in faces:
            shown.setdefault(face.person, []).append(recognizer.embed(to_tensor(after), face.points))
            originals.setdefault(face.person, []).append(recognizer.embed(to_tensor(before), face.points))
    first, other = np.stack(shown[0]), np.stack(shown[2])
    assert np.linalg.norm(first - first.mean(0), axis=1).max() < 0.4
    # Farther apart than the frames of one of them.
    assert np.linalg.norm(first.mean(0) - other.mean(0)) > 0.5
    assert np.linalg.norm(first.mean(0) - np.mean(originals[0], axis=0)) > recognizer.threshold


def test_a_plan_survives_json_and_can_be_edited(clip, planned, tmp_path: Path) -> None:
    path, _ = clip
    plan, _ = planned
    again = VideoPlan.from_json(plan.to_json())
    assert again.to_json() == plan.to_json()
    for a, b in zip(plan.tracks, again.tracks, strict=True):
        for i, sighting in a.track.sightings.items():
            read = b.track.sightings[i]
            assert read.box == pytest.approx(sighting.box, abs=0.06)
            if sighting.points is not None:
                assert read.points == pytest.approx(sighting.points, abs=0.1)
    document = json.loads(plan.to_json())
    document["people"][0]["treat"] = False
    document["tracks"].append({"track": 99, "keyframes": {"3": [10, 10, 40, 40], "9": [20, 10, 50, 40]}})
    edited = VideoPlan.from_json(json.dumps(document))
    source = VideoSource(path)
    report = VideoJob(Settings(method="solid")).render(source, edited, tmp_path / "out.mp4")
    assert report.count("redacted") == FRAMES + 7
    assert report.kept == 1 and "1 person was kept by choice" in report.summary()
    before, after = pixels(path), pixels(tmp_path / "out.mp4")
    assert np.abs(before[6][20:30, 20:40].astype(int) - after[6][20:30, 20:40]).mean() > 20
    assert np.abs(before[0].astype(int) - after[0]).mean() < 4


def test_keyframes_correct_a_track_and_leave_its_other_frames(planned) -> None:
    plan, _ = planned
    document = json.loads(plan.to_json())
    row = document["tracks"][0]
    assert row["first_frame"] == 0 and len(row["boxes"]) > 6
    row["keyframes"] = {"2": [10, 10, 40, 40], "4": [20, 10, 50, 40]}
    before, after = (VideoPlan.from_json(json.dumps(d)).tracks[0].track for d in (json.loads(plan.to_json()), document))
    assert after.sightings.keys() == before.sightings.keys()
    for i, sighting in after.sightings.items():
        if 2 <= i <= 4:
            assert sighting.box == pytest.approx(np.array([10, 10, 40, 40]) + [5 * (i - 2), 0] * 2)
            assert sighting.points is None and sighting.origin == "manual"
        else:
            assert np.array_equal(sighting.box, before.sightings[i].box)
            assert (sighting.points is None) == (before.sightings[i].points is None)


def test_keyframes_beyond_the_end_of_a_track_make_it_longer(planned) -> None:
    plan, _ = planned
    document = json.loads(plan.to_json())
    row = document["tracks"][0]
    for key in ("landmarks", "landmark_frames"):
        row.pop(key, None)
    row["origins"], row["scores"], row["boxes"] = row["origins"][:3], row["scores"][:3], [[0, 0, 30, 30]] * 3
    row["keyframes"] = {"6": [40, 0, 70, 30]}
    track = VideoPlan.from_json(json.dumps(document)).tracks[0].track
    assert (track.first, track.last) == (0, 6) and sorted(track.sightings) == list(range(7))
    assert track.sightings[4].box == pytest.approx([20, 0, 50, 30])


def test_a_person_can_be_treated_in_a_part_of_the_video(clip, planned, tmp_path: Path) -> None:
    path, _ = clip
    plan, _ = planned
    document = json.loads(plan.to_json())
    for row in document["people"]:
        row["treat"] = [[0, 4], [9, 9]] if row["person"] == plan.people[0] else False
    edited = VideoPlan.from_json(json.dumps(document))
    assert VideoPlan.from_json(edited.to_json()).limits == edited.limits
    report = VideoJob(Settings(method="solid")).render(VideoSource(path), edited, tmp_path / "out.mp4")
    assert report.kept == len(plan.people)
    mine = [t for t in plan.tracks if t.person == plan.people[0]]
    seen = [i for i in range(FRAMES) if any(i in t.track.sightings for t in mine)]
    assert report.count("redacted") == len([i for i in seen if i <= 4 or i == 9]) > 3
    for number, (before, after) in enumerate(zip(pixels(path), pixels(tmp_path / "out.mp4"), strict=True)):
        changed = np.abs(before.astype(int) - after).max(2) > 60
        assert bool(changed.mean() > 0.003) == (number in seen and (number <= 4 or number == 9)), number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not of format"),
        ({"tracks": [{"track": 0, "keyframes": {"1": [5, 5, 1, 9]}}]}, "invalid value"),
        ({"tracks": [{"track": 0, "keyframes": {}}]}, "invalid value"),
        ({"tracks": [{"track": 0}]}, "invalid value"),
        ({"people": [{"treat": False}]}, "invalid value"),
        ({"video": 3}, "invalid value"),
        (
            {"tracks": [{"track": 7, "keyframes": {"3": [1, 1, 9, 9], "999": [1, 1, 9, 9]}}]},
            "track 7 has a keyframe 999",
        ),
        ({"people": [{"person": 0, "treat": None}]}, "treat is true, false, or pairs"),
        ({"people": [{"person": 0, "treat": []}]}, "treat is true, false, or pairs"),
        ({"people": [{"person": 0, "treat": [[9, 3]]}]}, "a first and a last frame"),
        ({"people": [{"person": 0, "treat": [[0, 1.5]]}]}, "a first and a last frame"),
        ({"tracks": [{"track": 7, "person": -1, "keyframes": {"3": [1, 1, 9, 9]}}]}, "0 or more"),
    ],
)
def test_a_damaged_plan_is_one_sentence(planned, change: dict[str, object], message: str) -> None:
    document = json.loads(planned[0].to_json()) | change
    with pytest.raises(InputError, match=message):
        VideoPlan.from_json(json.dumps(document))


def test_a_plan_of_another_video_is_refused(clip, planned, people, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    write_clip(other, (p for p, _ in frames_of([Shot(5, [(1, moving)])], people, *SIZE)))
    with pytest.raises(InputError, match="another video"):
        VideoJob(Settings(method="solid")).render(VideoSource(other), planned[0], tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_selection_by_person(clip, people, tmp_path: Path) -> None:
    path, _ = clip
    recognizer = built_in_recognizers()[0]
    reference = recognizer.embed(to_tensor(people[2].pixels), people[2].points)
    source = VideoSource(path)
    for settings, treated in (
        (Settings(method="solid", exclude=(reference,)), 2 * FRAMES),
        (Settings(method="solid", include=(reference,)), FRAMES),
        (Settings(method="solid", selection=Selection("1")), FRAMES),
    ):
        plan, _ = VideoJob(settings).plan(source)
        index = plan.by_frame()
        assert sum(bool(index[i]) for i in range(plan.frames)) == pytest.approx(treated, abs=1), settings
    with pytest.raises(InputError, match="no person 7"):
        VideoJob(Settings(selection=Selection("7"))).plan(source)


def test_a_video_without_a_face(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    gray = np.full((96, 128, 3), 90, np.uint8)
    write_clip(path, [gray] * 5)
    source = VideoSource(path)
    job = VideoJob(Settings(method="solid", policy=Policy(no_face="stop")))
    with pytest.raises(PolicyStop, match="no face was found"):
        job.run(source, tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()
    VideoJob(Settings(method="solid", policy=Policy(no_face="pass"))).run(source, tmp_path / "c.mp4")
    assert np.abs(pixels(tmp_path / "c.mp4")[0].astype(int) - 90).max() < 4
    report = VideoJob(Settings(method="solid")).run(source, tmp_path / "d.mp4")
    assert np.abs(pixels(tmp_path / "d.mp4")[0].astype(int) - 128).max() < 4 and report.frames == 5


def test_the_untouched_video_never_gets_the_name_of_the_redacted_one(tmp_path: Path) -> None:
    """A kill before a video without a face is redacted as a whole must leave nothing."""
    write_clip(tmp_path / "a.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 5)

    def interrupt(done: int, total: int, what: str) -> None:
        if what == "redacting frames":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VideoJob(Settings(method="solid")).run(VideoSource(tmp_path / "a.mp4"), tmp_path / "b.mp4", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_policy_can_stop(clip, planned, tmp_path: Path) -> None:
    plan, _ = planned
    # Without roles nobody can be replaced.
    with pytest.raises(PolicyStop):
        VideoJob(Settings(policy=Policy.always("stop")), options=QUICK, processes=1).render(
            VideoSource(clip[0]), plan, tmp_path / "out.mp4", people=[]
        )
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(clip, planned, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, what: str) -> None:
        if what == "replacing faces" and done > 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VideoJob(Settings(method="solid")).render(
            VideoSource(clip[0]), planned[0], tmp_path / "out.mp4", progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_change_nothing(clip, planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceveil.pipelines.jobs.video.job.MIN_FRAMES", 1)
    plan, people = planned
    for count in (1, 2):
        job = VideoJob(Settings(), VideoFormat("ffv1"), options=QUICK, processes=count)
        job.render(VideoSource(clip[0]), plan, tmp_path / f"{count}.mkv", people)
    pairs = zip(pixels(tmp_path / "1.mkv"), pixels(tmp_path / "2.mkv"), strict=True)
    assert all((a == b).all() for a, b in pairs)


def test_a_span_is_planned_and_rendered(clip, tmp_path: Path) -> None:
    source = VideoSource(clip[0], Span(0.3, 0.9))
    plan, _ = VideoJob(Settings(method="solid")).plan(source)
    assert 0 < plan.frames < 2 * FRAMES
    assert VideoPlan.from_json(plan.to_json()).span == Span(0.3, 0.9)
    VideoJob(Settings(method="solid")).render(source, plan, tmp_path / "out.mp4")
    assert len(pixels(tmp_path / "out.mp4")) == plan.frames


def test_pixels_far_from_faces_stay(clip, planned, tmp_path: Path) -> None:
    plan, people = planned
    job = VideoJob(Settings(), VideoFormat("ffv1"), options=QUICK, processes=1)
    job.render(VideoSource(clip[0]), plan, tmp_path / "out.mkv", people)
    for number, (before, after) in enumerate(zip(pixels(clip[0]), pixels(tmp_path / "out.mkv"), strict=True)):
        far = np.ones(before.shape[:2], bool)
        for planned_face in plan.by_frame()[number]:
            x1, y1, x2, y2 = (round(v) for v in planned_face.face.box)
            pad = round(1.5 * planned_face.face.size)
            far[max(0, y1 - pad) : y2 + pad, max(0, x1 - pad) : x2 + pad] = False
        assert (before[far] == after[far]).all()


def test_the_person_selection_keeps_seeds(clip, planned, tmp_path: Path) -> None:
    """Leaving a person out does not change the others."""
    plan, people = planned
    alone = replace(plan, kept=frozenset({1}))
    for name, one in (("both", plan), ("alone", alone)):
        job = VideoJob(Settings(), VideoFormat("ffv1"), options=QUICK, processes=1)
        job.render(VideoSource(clip[0]), one, tmp_path / f"{name}.mkv", people)
    both, single = pixels(tmp_path / "both.mkv"), pixels(tmp_path / "alone.mkv")
    assert all((a == b).all() for a, b in zip(both[:FRAMES], single[:FRAMES], strict=True))
