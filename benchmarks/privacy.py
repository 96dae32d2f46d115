"""What a recognizer that took no part, and attackers who learn, still find in faces that the built-in model replaced.

    python benchmarks/privacy.py [PHOTOS ...] [--judge FILE.py] [--show searched|pseudonyms|sampled] [--seeds 8]
        [--people DIR] [--sheet SHEET.png]

Each photo of PHOTOS shows another person; its largest face is replaced with each seed. The judge is a Python file as
``faceveil train embedder --teacher`` takes it. --people is a folder of pNN_*.webp, several photos of each person. The
sheets contain faces: do not add them to the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from attackers import Outputs, cosines, estimate, found, found_by_averaging, found_by_learning, linked
from faceveil.pipelines.core.errors import FaceVeilError
from faceveil.pipelines.core.parallel import parallel
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.faces.align import box_transform, crop, five_points, similarity
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face, brow_height, eye_opening, mouth_gap, yaw_proxy
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.identity.ledger import Key
from faceveil.pipelines.identity.pseudonym import Pseudonyms, Regions
from faceveil.pipelines.imaging.image import LoadedImage, as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.jobs.embedder import open_teacher
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.training.embedder import Teacher
from torch import Tensor

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
JUDGE = DATA / "recognizers" / "mobileface_v2.py"
THRESHOLD = 0.314
"""MobileFace V2's cosine at a false-match rate of 1 % between strangers."""
SEEDS = 8
WORKERS = os.cpu_count() or 1
SHOWN = 3
"""Seeds that the sheets show, and for which the face is searched again."""
Show = Literal["searched", "pseudonyms", "sampled"]


@dataclass(frozen=True)
class Row:
    """One anonymized face.

    Attributes:
        vector: the judge's unit vector; None where the face was redacted.
        outside: the same with a stranger's hair and background.
        utility: changes of yaw, mouth gap, eye opening and brow height; None where no face was found again.
        leaked: changed pixels outside the mask.
        tile: the face at 240 px, ``(3, 240, 240)``.
    """

    vector: np.ndarray | None
    outside: np.ndarray | None
    utility: tuple[float, ...] | None
    leaked: int
    tile: Tensor | None


@dataclass(frozen=True)
class Photo:
    """One person: the judge's unit vector of the original, and the anonymized faces."""

    name: str
    vector: np.ndarray
    rows: tuple[Row, ...]
    tile: Tensor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", default=[DATA / "photos", DATA / "portraits_cc0"])
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--show", choices=["searched", "pseudonyms", "sampled"], default="searched")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--people", type=Path, default=DATA / "people")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    paths = [p for folder in options.photos for p in sorted(folder.iterdir()) if _is_one_person(p)]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()
    print(f"{len(paths)} photos, SHA-256 of all {digest[:16]}, judge {options.judge.stem}, {options.show}")
    jobs = [(p, options.judge, options.show, options.seeds) for p in paths]
    photos = [p for p in parallel(anonymized, jobs, WORKERS, silent, "") if p is not None]
    if options.sheet:
        _save_sheet(photos, options.sheet)
    return 0 if all([_privacy(photos, options.show), _utility(photos), _across(options.people, options)]) else 1


def _is_one_person(path: Path) -> bool:
    return path.suffix in (".jpg", ".png", ".webp") and not path.stem.endswith("_2")


def anonymized(path: Path, judge: Path, show: Show, seeds: int) -> Photo | None:
    """Replace the largest face of a photo with each seed; None where no face is found."""
    torch.set_num_threads(1)
    image = load_image(path)
    faces = detect_faces(image.pixels)
    face = max((f for f in faces if f.landmarks), key=lambda f: f.area, default=None)
    if face is None:
        return None
    teacher = _judge(judge)
    rows = []
    for seed in range(seeds):
        try:
            identity = _identity(show, path.stem, seed)
            result = anonymize_batch(image.pixels, Settings(seed=seed), faces.only([face]), identity=identity)
        except FaceVeilError as error:
            print(f"{path.stem}: {error}")
            return None
        rows.append(_row(image.pixels, result.pixels, result.mask, face, result.report.faces[0].outcome, seed, teacher))
    return Photo(path.stem, _embed(teacher, image.pixels, face.points), tuple(rows), _tile(image.pixels, face))


def _identity(show: Show, name: str, seed: int) -> Identity | Pseudonyms | None:
    if show == "sampled":
        number = int(hashlib.sha256(f"{name}{seed}".encode()).hexdigest()[:8], 16)
        return Identity(builtin_sampler("dlib").sample(1, number).vectors, "dlib")
    if show == "pseudonyms":
        sampler = builtin_sampler("dlib")
        return Pseudonyms(Regions(Key(bytes([seed + 1]) * 32), sampler), Path("unused"), sampler)
    return None


def _row(before: Tensor, after: Tensor, mask: Tensor, face: Face, outcome: str, seed: int, teacher: Teacher) -> Row:
    leaked = int(((after != before).any(1, keepdim=True) & (mask == 0)).sum())
    tile = _tile(after, face) if seed < SHOWN else None
    if outcome != "replaced":
        return Row(None, None, None, leaked, tile)
    again = _found_at(after, face) if seed < SHOWN else None
    points = face.points if again is None else again.points
    utility = None if again is None else tuple(abs(f(again.points) - f(face.points)) for f in _UTILITY)
    vectors = _embed(teacher, after, points), _embed(teacher, after, points, _stranger(teacher))
    return Row(*vectors, utility, leaked, tile)


_UTILITY = (yaw_proxy, mouth_gap, eye_opening, brow_height)


@lru_cache(maxsize=1)
def _judge(path: Path) -> Teacher:
    return open_teacher(path)


def _embed(teacher: Teacher, image: Tensor, points: np.ndarray, around: Tensor | None = None) -> np.ndarray:
    """The judge's unit vector; with ``around``, of the inner face on another person's hair and background."""
    face = crop(image, similarity(five_points(points), teacher.template), teacher.size)
    if around is not None:
        face = torch.lerp(around, face, _inner(teacher))
    with torch.no_grad():
        vector = teacher.embed(face)[0].double().numpy()
    return np.asarray(vector / np.linalg.norm(vector))


@lru_cache(maxsize=1)
def _sample() -> tuple[Tensor, np.ndarray]:
    image = as_image(astronaut()).pixels
    return image, detect_faces(image)[0].points


def _stranger(teacher: Teacher) -> Tensor:
    """Hair and background of the public-domain sample portrait, in the judge's alignment."""
    image, points = _sample()
    return crop(image, similarity(five_points(points), teacher.template), teacher.size)


def _inner(teacher: Teacher) -> Tensor:
    """Soft ellipse of the inner face in the judge's crop, ``(1, 1, S, S)``."""
    eyes, mouth = teacher.template[:2].mean(0), teacher.template[3:].mean(0)
    center, iod = (0.6 * eyes + 0.4 * mouth), float(np.ptp(teacher.template[:2, 0]))
    y, x = torch.meshgrid(*(torch.arange(teacher.size) + 0.5,) * 2, indexing="ij")
    radius = torch.hypot((x - center[0]) / (1.05 * iod), (y - center[1]) / (1.4 * iod))
    return ((1.1 - radius) / 0.2).clamp(0, 1)[None, None].float()


def _found_at(pixels: Tensor, face: Face) -> Face | None:
    center = np.array(face.box).reshape(2, 2).mean(0)
    near = [
        f
        for f in detect_faces(pixels)
        if f.landmarks and np.linalg.norm(np.array(f.box).reshape(2, 2).mean(0) - center) < face.size / 2
    ]
    return near[0] if near else None


def _tile(pixels: Tensor, face: Face, side: int = 240) -> Tensor:
    return crop(pixels, box_transform(face.box, side, margin=0.5), side)[0]


def _privacy(photos: Sequence[Photo], show: Show) -> bool:
    gallery = np.stack([p.vector for p in photos])
    seen = [(i, row) for i, p in enumerate(photos) for row in p.rows if row.vector is not None]
    people = np.array([i for i, _ in seen])
    outputs = Outputs(people, np.stack([row.vector for _, row in seen if row.vector is not None]))
    outside = Outputs(people, np.stack([row.outside for _, row in seen if row.outside is not None]))
    print(f"{len(seen)} replaced faces of {len(np.unique(people))} people, gallery of {len(gallery)}")
    similar = cosines(gallery, outputs)
    single = found(gallery, outputs)
    averaged, averaged_people = found_by_averaging(gallery, outputs)
    searched = show == "searched"
    met = [
        _bar("mean cosine", similar, people, 0.12 if searched else 0.15),
        _bar("below the threshold at FMR 1 %", similar < THRESHOLD, people, 0.95 if searched else 0.92, at_least=True),
        _bar("rank 1", single, people, 0.10),
        _bar("rank 1 after the LDA attack", found_by_learning(gallery, outputs), people, 0.40),
        _bar("the same, a stranger's hair and background", found_by_learning(gallery, outside), people, 0.15),
        _bar("two seeds linked at rank 1", linked(outputs), people, 0.60),
        _bar("rank 1 of the average of all seeds", averaged, averaged_people, float(single.mean()) + 0.05),
    ]
    return all(met) if searched else all(met[:2])


def _utility(photos: Sequence[Photo]) -> bool:
    rows = [row for p in photos for row in p.rows]
    shown = [(i, row) for i, p in enumerate(photos) for row in p.rows[:SHOWN] if row.vector is not None]
    people = np.array([i for i, row in shown if row.utility is not None])
    table = np.array([row.utility for _, row in shown if row.utility is not None])
    lost = np.array([row.utility is None for _, row in shown])
    redacted = np.array([row.vector is None for row in rows])
    everyone = np.repeat(np.arange(len(photos)), [len(p.rows) for p in photos])
    return all(
        [
            _bar("redacted", redacted, everyone, 0.05),
            _bar("not detected again", lost, np.array([i for i, _ in shown]), 0.0),
            *(
                _bar(f"change of {name}", table[:, i], people, limit)
                for i, (name, limit) in enumerate(
                    [("yaw, IOD", 0.014), ("mouth gap, IOD", 0.015), ("eye opening", 0.011), ("brow height, IOD", 0.04)]
                )
            ),
            _bar("changed pixels outside the mask", np.array([row.leaked for row in rows]), everyone, 0.0),
        ]
    )


def _across(folder: Path, options: argparse.Namespace) -> bool:
    """Compare anonymized photos with other photos of the same person."""
    paths = sorted(p for p in folder.glob("p*_*.webp") if "profile" not in p.stem) if folder.is_dir() else []
    if not paths:
        print("no folder of people: the comparison across photos was skipped")
        return True
    jobs = [(p, options.judge, options.show, 1) for p in paths]
    photos = [p for p in parallel(anonymized, jobs, WORKERS, silent, "") if p is not None]
    names = np.array([p.name.split("_")[0] for p in photos])
    originals = np.stack([p.vector for p in photos])
    similar, best, people = [], [], []
    for i, photo in enumerate(photos):
        vector = photo.rows[0].vector
        if vector is None:
            continue
        cosine = originals @ vector
        others = np.arange(len(photos)) != i
        similar.append(float(cosine[others & (names == names[i])].mean()))
        nearest = max(np.unique(names), key=lambda name: float(cosine[others & (names == name)].mean()))
        best.append(nearest == names[i])
        people.append(names[i])
    who = np.unique(people, return_inverse=True)[1]
    print(f"across photos: {len(similar)} replaced photos of {len(np.unique(people))} people")
    return all(
        [
            _bar("mean cosine to other photos of the person", np.array(similar), who, 0.10),
            _bar("rank 1 of the people", np.array(best), who, 0.20),
        ]
    )


def _bar(name: str, values: np.ndarray, people: np.ndarray, limit: float, at_least: bool = False) -> bool:
    measured = estimate(np.asarray(values, dtype=float), people)
    met = measured.mean >= limit if at_least else measured.mean <= limit
    sign = ">=" if at_least else "<="
    interval = f"[{measured.low:.3f}, {measured.high:.3f}]"
    print(f"{'met ' if met else 'MISS'}  {name:46} {measured.mean:7.3f}  {interval}  {sign} {limit:g}")
    return met


def _save_sheet(photos: Sequence[Photo], path: Path, columns: int = 3) -> None:
    """Original and ``SHOWN`` seeds of each person, several people in a row."""
    strips = [torch.cat([p.tile, *(row.tile for row in p.rows if row.tile is not None)], -1) for p in photos]
    strips += [torch.zeros_like(strips[0])] * (-len(strips) % columns)
    rows = [torch.cat(strips[i : i + columns], -1) for i in range(0, len(strips), columns)]
    save_image(LoadedImage(torch.cat(rows, -2)[None]), path)


if __name__ == "__main__":
    sys.exit(main())
