"""Video by reenactment: one new person through cuts, nothing of the original, and memory that does not grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import write_clip
from faceveil.pipelines.core.errors import InputError, PolicyStop
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Box, Faces
from faceveil.pipelines.geometry.builtin import NAME, built_in_morphable_model
from faceveil.pipelines.geometry.coefficients import Standardizer
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_tensor, to_uint8
from faceveil.pipelines.imaging.video import VideoSource
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.jobs.video.job import VideoJob
from faceveil.pipelines.methods.diffdeid.clips import RADIUS, build_clips, find_clips, window_of
from faceveil.pipelines.methods.diffdeid.conditions import layout_of
from faceveil.pipelines.methods.diffdeid.method import DiffDeIDMethod
from faceveil.pipelines.methods.diffdeid.network import Denoiser, NetworkConfig
from faceveil.pipelines.methods.diffdeid.pipeline import Checkpoint
from faceveil.pipelines.methods.diffdeid.presence import HOLD, MAX_GAP, Presence, overlap
from faceveil.pipelines.methods.diffdeid.spec import DiffDeIDOptions
from faceveil.pipelines.methods.diffdeid.training import Recipe, train
from faceveil.pipelines.methods.diffdeid.video import Reenactment
from faceveil.pipelines.methods.identities import MethodIdentity
from faceveil.pipelines.methods.registry import open_method
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer
from faceveil.pipelines.training.devices import Run

from .conftest import SIZE, randomized, write


@pytest.fixture(scope="module")
def method(checkpoint_file) -> DiffDeIDMethod:
    return open_method("diffdeid", DiffDeIDOptions(checkpoint_file, steps=1))


@pytest.fixture(scope="module")
def clips(config) -> Checkpoint:
    layout = layout_of(built_in_morphable_model())
    network = randomized(Denoiser(replace(config, identity=0, window=2 * RADIUS + 1)), 1)
    numbers = config.coefficients
    return Checkpoint(network, Standardizer(layout, torch.zeros(1, numbers), torch.ones(1, numbers)), NAME, "")


@pytest.fixture(scope="module")
def moving(portrait) -> list[torch.Tensor]:
    """A face that moves by 2 px a frame, 4 frames."""
    face = portrait[..., 0:300, 90:390]
    return [torch.roll(face, 2 * i, -1) for i in range(4)]


class Stranger:
    """A recognizer that always sees another person, so that nothing is redacted."""

    threshold = 0.6

    def embed(self, image, points):
        return default_recognizer().embed(image, points)

    def embed_many(self, images, points):
        return default_recognizer().embed_many(images, points)

    def distance(self, a, b):
        return 1.0


class Friend(Stranger):
    """A recognizer that always finds the original."""

    name = "friend"

    def distance(self, a, b):
        return 0.1


def detect(image):
    return detect_faces(image, rotated=False)


def reenact(method, clips, frames, recognizers=None, detector=detect):
    stream = Reenactment(method, clips, recognizers or built_in_recognizers(), detector, steps=1)
    return stream, list(stream(frames))


@pytest.fixture(scope="module")
def film(moving, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, [to_uint8(image) for image in moving])
    return path


@pytest.fixture(scope="module")
def job(checkpoint_file, clips, tmp_path_factory) -> VideoJob:
    file = tmp_path_factory.mktemp("clips") / "diffdeid_video.safetensors"
    clips.save(file)
    return VideoJob(Settings(method="diffdeid"), options=DiffDeIDOptions(checkpoint_file, steps=1, clips=file))


def test_a_video_file_is_reenacted(job, film, tmp_path):
    report = job.run(VideoSource(film), tmp_path / "out.mp4")
    assert report.frames == 4 and report.safe
    assert report.count("replaced") + report.count("redacted") == 4
    both = zip(VideoSource(film).frames(), VideoSource(tmp_path / "out.mp4").frames(), strict=True)
    for before, after in both:
        x, y = detect(to_tensor(before.pixels))[0].points[30].astype(int)
        assert np.abs(before.pixels[y, x].astype(int) - after.pixels[y, x]).max() > 10
        # Far from the face only the codec changes pixels.
        assert np.abs(before.pixels[:20, :20].astype(int) - after.pixels[:20, :20]).max() < 30


def test_whoever_is_kept_is_not_reenacted(job, film, tmp_path):
    source = VideoSource(film)
    plan, _ = job.plan(source)
    report = job.render(source, replace(plan, kept=frozenset(plan.people)), tmp_path / "out.mp4")
    assert not report.people and report.kept == 1


def test_what_a_reenacted_video_cannot_have(job, film, tmp_path):
    stops = replace(job, settings=replace(job.settings, policy=Policy.always("stop")))
    with pytest.raises(PolicyStop, match="frame 0"):
        # A recognizer that always finds the original.
        replace(stops, recognizers=[Friend()]).run(VideoSource(film), tmp_path / "out.mp4")
    with pytest.raises(InputError, match="no vault"):
        replace(job, identity=MethodIdentity("diffdeid", 0)).run(VideoSource(film), tmp_path / "out.mp4")
    with pytest.raises(InputError, match="same-person"):
        replace(job, settings=replace(job.settings, same_person=True)).run(VideoSource(film), tmp_path / "out.mp4")
    plan, _ = job.plan(VideoSource(film))
    with pytest.raises(InputError, match="limits"):
        job.render(VideoSource(film), replace(plan, limits={0: ((0, 1),)}), tmp_path / "out.mp4")
    with pytest.raises(InputError, match="strength"):
        still = replace(job, settings=replace(job.settings, strength=0.0))
        still.run(VideoSource(film), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("with_clips", [True, False])
def test_every_frame_shows_one_new_person(method, clips, moving, with_clips):
    stream, results = reenact(method, clips if with_clips else None, moving, [Stranger()])
    assert [(r.replaced, r.redacted) for r in results] == [(1, 0)] * len(moving)
    assert len(stream.people) == 1
    for before, result in zip(moving, results, strict=True):
        assert (before != result.image).float().mean() > 0.05
        x, y = detect(before)[0].points[30].astype(int)
        assert (before - result.image)[0, :, y, x].abs().max() > 0.05


def test_the_network_for_clips_draws_the_frames(method, clips, moving):
    first, second = (reenact(method, network, moving[:2], [Stranger()])[1] for network in (clips, None))
    assert not torch.equal(first[1].image, second[1].image)


def test_a_face_that_is_still_recognized_is_redacted(method, moving):
    _, results = reenact(method, None, moving[:2], [Friend()])
    assert [(r.replaced, r.redacted) for r in results] == [(0, 1)] * 2
    x, y = detect(moving[0])[0].points[30].astype(int)
    assert torch.allclose(results[0].image[0, :, y, x], torch.full((3,), 0.5), atol=0.02)


def test_a_cut_starts_again_with_the_same_person(method, clips, moving):
    black = torch.zeros_like(moving[0])
    frames = [moving[0], moving[1], *[black] * 20, moving[2]]
    stream, results = reenact(method, clips, frames)
    assert results[0].replaced + results[0].redacted == results[-1].replaced + results[-1].redacted == 1
    # Far from the cuts nothing is redacted.
    assert torch.equal(results[12].image, black)
    assert len(stream.people) == 1
    assert len(stream.people[0].embeddings) == 2


def test_another_person_becomes_another(method, clips, photos):
    first, second = (load_image(path).pixels for path in photos if path.stem in ("person_a_1", "person_b_1"))
    frames = [first, torch.zeros(1, 3, 64, 64), second]
    stream, _ = reenact(method, clips, frames)
    assert len(stream.people) == 2
    first, second = (person.new.vector for person in stream.people)
    assert not np.allclose(first, second)


def test_a_face_that_is_missed_between_two_frames_is_redacted(method, clips, moving):
    calls = iter(range(10))
    _, results = reenact(
        method, clips, moving[:3], detector=lambda image: Faces(()) if next(calls) == 1 else detect(image)
    )
    assert results[1].redacted == 1
    x, y = detect(moving[1])[0].points[30].astype(int)
    assert torch.allclose(results[1].image[0, :, y, x], torch.full((3,), 0.5), atol=0.02)


def test_a_face_without_landmarks_is_redacted(method, clips, moving):
    def found(image):
        return Faces(replace(face, landmarks=()) for face in detect(image))

    _, results = reenact(method, clips, moving[:1], detector=found)
    assert (results[0].replaced, results[0].redacted) == (0, 1)


BOX, SHIFTED = (10.0, 10.0, 30.0, 30.0), (14.0, 10.0, 34.0, 30.0)


def followed(*frames: list[Box], cuts: Sequence[int] = ()) -> list[list[Box]]:
    presence = Presence()
    for number, boxes in enumerate(frames):
        presence.add(number, boxes, number in cuts)
    return [presence.missed(number) for number in range(len(frames))]


def test_gaps_are_bridged():
    assert followed([BOX], [], [SHIFTED])[1] == [(12.0, 10.0, 32.0, 30.0)]
    # A face that was found there already needs no second redaction.
    assert followed([BOX], [(11.0, 9.0, 41.0, 39.0)], [SHIFTED])[1] == []
    # Two faces are two trails.
    far = (60.0, 60.0, 80.0, 80.0)
    assert followed([BOX, far], [], [far, BOX])[1] == [BOX, far]


def test_both_ends_are_held():
    missed = followed(*[[]] * 6, [BOX], *[[]] * 6)
    assert [bool(boxes) for boxes in missed] == [False] * 2 + [True] * HOLD + [False] + [True] * HOLD + [False] * 2


def test_a_cut_ends_the_hold_but_a_flash_is_bridged():
    assert followed([BOX], [], [], cuts=[1]) == [[], [], []]
    assert followed([BOX], [], [BOX], cuts=[1, 2])[1] == [BOX]


def test_memory_of_a_long_shot_does_not_grow():
    presence = Presence()
    for number in range(400):
        place = 50.0 * (number % 40)
        presence.add(number, [(place, 10.0, place + 20, 30.0)], False)
    assert len(presence) <= 2 * MAX_GAP + 2
    assert all(len(trail.boxes) <= 3 * MAX_GAP + 1 for trail in presence._trails)


def test_frames_stream(method, moving):
    """Results come while frames are read, and no more than the window waits."""
    read = []

    def endless():
        for number in range(40):
            read.append(number)
            yield torch.zeros(1, 3, 64, 64)

    stream = Reenactment(method, None, built_in_recognizers(), lambda image: Faces(()))
    for number, _ in enumerate(stream(endless())):
        assert len(read) <= number + RADIUS + 1 or len(read) == 40
    assert len(read) == 40


def test_windows_are_clamped_at_the_ends():
    assert window_of(0, 30)[: RADIUS + 1] == [0] * (RADIUS + 1)
    assert window_of(29, 30)[RADIUS:] == [29] * (RADIUS + 1)
    assert window_of(15, 40) == list(range(2, 29))
    assert len(window_of(0, 1)) == 2 * RADIUS + 1


def test_overlap():
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == pytest.approx(1)
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (5, 5, 6, 6)) == 0


def test_a_checkpoint_for_images_is_no_checkpoint_for_clips(method, checkpoint):
    with pytest.raises(InputError, match="not trained on clips"):
        Reenactment(method, checkpoint, built_in_recognizers(), lambda image: Faces(()))


@pytest.fixture(scope="module")
def folder(moving, tmp_path_factory) -> Path:
    """One clip as a folder of frames, one as a video, and one without faces."""
    import av

    root = tmp_path_factory.mktemp("clips")
    for name, frames in (("a/one", moving), ("b/none", [torch.zeros(1, 3, 64, 64)] * 4)):
        (root / name).mkdir(parents=True)
        for i, frame in enumerate(frames):
            write(root / name / f"{i:03}.png", frame)
    with av.open(str(root / "c.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 300, 300, "yuv420p", 4_000_000
        for frame in moving:
            pixels = (frame[0].movedim(0, -1) * 255).byte().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
    return root


def test_the_network_for_clips_is_trained_from_a_folder(folder, tmp_path):
    assert [path.name for path in find_clips(folder)] == ["one", "none", "c.mp4"]
    clips = build_clips(folder, tmp_path / "data", SIZE, 1)
    assert len(clips) == 8
    assert len(build_clips(folder, tmp_path / "data", SIZE, 1)) == 8
    images, conditions = clips.draw(3, 0.0, torch.Generator().manual_seed(0))
    assert images.shape == (3, 3, SIZE, SIZE)
    assert conditions.identity.shape == (3, 0)
    assert conditions.coefficients.shape == (3, 27, clips.coefficient_size)
    assert conditions.masked[:, 3].abs().max() == 0
    recipe = Recipe(width=8, blocks=1, steps=2, batch=2)
    checkpoint, complete = train(clips, recipe, Run(tmp_path / "a.state"))
    assert complete and checkpoint.space == ""
    checkpoint.save(tmp_path / "clips.safetensors")
    assert Checkpoint.open(tmp_path / "clips.safetensors").network.config == NetworkConfig(
        SIZE, (8, 16, 32, 64, 64), 1, (0, 1, 2, 3, 4), 64, 0, clips.coefficient_size, 27
    )
    other = Recipe(width=16, blocks=1, steps=1, batch=2)
    with pytest.raises(InputError, match="another size"):
        train(clips, other, Run(tmp_path / "c.state"), start=checkpoint)
    with pytest.raises(InputError, match="holds no clips"):
        build_clips(tmp_path / "nothing", tmp_path / "more", SIZE, 1)
