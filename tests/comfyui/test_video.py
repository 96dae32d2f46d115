"""The video and vault nodes inside a real ComfyUI."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Card, Pose, Shot, frames_of, wave, write_clip
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.imaging.uint8 import to_uint8
from faceveil.pipelines.imaging.video import VideoSource

QUICK = {"method": "appearance", "search": 1}
FRAMES = 16


@pytest.fixture(scope="module")
def clip(portrait: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    face = detect_faces(portrait)[0]
    card = Card("a", to_uint8(portrait), np.array(face.box), face.points)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    shots = [Shot(FRAMES, [(0, lambda t: Pose(0.8 + 0.2 * t, 0.5, 0.95, 8 * wave(t)))])]
    write_clip(path, (p for p, _ in frames_of(shots, [card], 320, 180)), variable=True)
    return path


@pytest.fixture
def load(nodes):
    latest = pytest.importorskip("comfy_api.latest")
    return latest.InputImpl.VideoFromFile


SETTINGS = {"no_face": "redact", "sensitivity": "normal", "codec": "auto"}


def test_a_video_is_redacted_from_its_file(run, nodes, load, clip: Path) -> None:
    for file in (str(clip), BytesIO(clip.read_bytes())):
        video, report, summary = run("RedactVideo", video=load(file), style="solid", shape="ellipse", **SETTINGS)
        written = Path(video.get_stream_source())
        assert len(list(VideoSource(written).frames())) == FRAMES
        assert f"{FRAMES} redacted" in summary and '"redacted"' in report
        assert b"SECRET" not in written.read_bytes()


def test_a_video_is_veiled(run, nodes, load, clip: Path) -> None:
    video, _, summary = run(
        "VeilVideo", video=load(str(clip)), strength=1.0, seed=0, unsafe_face="redact", method=QUICK, **SETTINGS
    )
    assert "replaced" in summary
    before, after = ([f.pixels for f in VideoSource(Path(p)).frames()] for p in (clip, video.get_stream_source()))
    assert len(before) == len(after)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_a_trimmed_video_stays_trimmed(run, nodes, load, clip: Path) -> None:
    video = load(str(clip))
    if not hasattr(video, "as_trimmed"):
        pytest.skip("this ComfyUI does not trim")
    trimmed = video.as_trimmed(0.2, 0.3)
    result = run("RedactVideo", video=trimmed, style="solid", shape="ellipse", **SETTINGS)[0]
    assert 4 <= len(list(VideoSource(Path(result.get_stream_source())).frames())) <= 8


def test_saving_leaves_no_tags(run, nodes, load, clip: Path) -> None:
    import folder_paths

    output = Path(folder_paths.get_output_directory())
    before = set(output.rglob("clean*"))
    run("SaveDeidentifiedVideo", video=load(str(clip)), filename_prefix="clean", format="auto")
    run("SaveDeidentifiedVideo", video=load(str(clip)), filename_prefix="clean", format="mkv")
    saved = sorted(set(output.rglob("clean*")) - before)
    assert sorted(p.suffix for p in saved) == [".mkv", ".mp4"]
    for path in saved:
        assert b"SECRET" not in path.read_bytes()
        assert len(list(VideoSource(path).frames())) == FRAMES
        path.unlink()


def test_an_interrupted_video_leaves_nothing(run, nodes, load, clip: Path) -> None:
    import comfy.model_management as management
    import folder_paths

    temporary = Path(folder_paths.get_temp_directory())
    before = set(temporary.glob("*")) if temporary.is_dir() else set()
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run("RedactVideo", video=load(str(clip)), style="solid", shape="ellipse", **SETTINGS)
    management.interrupt_current_processing(False)
    assert set(temporary.glob("*")) == before


def test_tracked_frames_show_one_person(run, nodes, clip: Path) -> None:
    frames = torch.stack([torch.from_numpy(f.pixels).float() / 255 for f in VideoSource(clip).frames()])[::2]
    faces = run("TrackFaces", frames=frames, frame_rate=12.5, sensitivity="normal")[0]
    assert {f.image for f in faces} == set(range(len(frames))) and len({f.track for f in faces}) == 1
    _, _, _, identity, *_ = run(
        "VeilFaces",
        image=frames,
        strength=1.0,
        seed=0,
        # Such a short search does not always convince the recognizers; who is shown is the question here.
        unsafe_face="pass",
        no_face="redact",
        same_person=False,
        method=QUICK,
        faces=faces,
    )
    shown = [one for one in identity if one is not None]
    assert len(shown) > len(frames) / 2
    assert all(one.seed == shown[0].seed for one in shown)
    assert all((one.codes[n] == code).all() for one in shown for n, code in shown[0].codes.items())


def test_faces_are_sealed_and_restored(run, nodes) -> None:
    import folder_paths

    image = run("SamplePortrait", picture="group")[0]
    veiled, mask, faces, *_ = run(
        "VeilFaces",
        image=image,
        strength=1.0,
        seed=0,
        unsafe_face="redact",
        no_face="redact",
        same_person=False,
        method=QUICK,
    )
    common = {"key": "test-vault", "filename_prefix": "test-vault"}
    vault = run("SealOriginals", original=image, veiled=veiled, mask=mask, faces=faces, **common)[0]
    path = Path(folder_paths.get_output_directory()) / vault
    key = Path(folder_paths.get_user_directory()) / "faceveil" / "test-vault.vaultkey"
    try:
        back = run("RestoreFaces", image=veiled, vault=vault, key="test-vault", person=-1)[0]
        assert torch.equal((back * 255).round(), (image * 255).round())
        one = run("RestoreFaces", image=veiled, vault=vault, key="test-vault", person=1)[0]
        assert not torch.equal(one, back) and not torch.equal((one * 255).round(), (veiled * 255).round())
        changed = veiled.clone()
        changed[0, 0, 0, 0] = 1 - changed[0, 0, 0, 0].round()
        with pytest.raises(Exception, match="was changed; nothing was restored"):
            run("RestoreFaces", image=changed, vault=vault, key="test-vault", person=-1)
        with pytest.raises(Exception, match="there is no vault"):
            run("RestoreFaces", image=veiled, vault="../../etc/passwd", key="test-vault", person=-1)
    finally:
        path.unlink()
        key.unlink()
