"""How often a judge takes true strangers with the same traits for a person: what keeping the traits costs at least.

    python benchmarks/traits.py PEOPLE STRANGERS --judge FILE.py [--every 2]

PEOPLE has several photos of each person, named PERSON_*.webp; STRANGERS are portraits of other people. Traits are the
numbers that the default keeps: apparent sex, age, skin, beard, light and others. For each photo of a person the most
similar strangers are taken as they are, with their own hair and background, and compared with the other photos. The
judge is a file as ``faceveil train embedder --teacher`` takes it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from attackers import estimate
from faceveil.pipelines.core.parallel import parallel
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.faces.align import crop, five_points, similarity
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.embedder import open_teacher
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer

WORKERS, RANDOM = 2, 20
NEAREST = (1, 5, 20)
"""Numbers of strangers for each photo, the most similar ones first."""


@dataclass(frozen=True)
class Face:
    """One photo: the judge's unit vector, and the traits."""

    name: str
    vector: np.ndarray
    traits: np.ndarray


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path)
    parser.add_argument("strangers", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--every", type=int, default=2, help="use every n-th stranger")
    options = parser.parse_args()
    paths = [p for p in sorted(options.people.glob("p*_*.webp")) if "profile" not in p.stem]
    people = measured(paths, options.judge)
    strangers = measured(sorted(options.strangers.glob("*.webp"))[:: options.every], options.judge)
    names = np.array([face.name.split("_")[0] for face in people])
    print(f"{len(people)} photos of {len(np.unique(names))} people, {len(strangers)} strangers")
    traits = np.stack([face.traits for face in strangers])
    spread = traits.std(0) + 1e-6
    order = [np.argsort((((traits - face.traits) / spread) ** 2).sum(1)) for face in people]
    for count in NEAREST:
        report(f"the {count} most similar", people, names, strangers, [o[:count] for o in order])
    generator = np.random.default_rng(0)
    chosen = [generator.choice(len(strangers), RANDOM, replace=False) for _ in people]
    report("random", people, names, strangers, chosen)
    return 0


def measured(paths: Sequence[Path], judge: Path) -> list[Face]:
    """The faces that the default could replace."""
    return [face for face in parallel(_measure, [(p, judge) for p in paths], WORKERS, silent, "", chunk=8) if face]


def _measure(path: Path, judge: Path) -> Face | None:
    torch.set_num_threads(1)
    method, teacher = AppearanceMethod(), open_teacher(judge)
    image = load_image(path).pixels
    face = max((f for f in detect_faces(image) if f.landmarks), key=lambda f: f.area, default=None)
    if face is None or method.unsupported_reason(face) is not None:
        return None
    prepared = method.prepare(View(image, face, default_recognizer().embed(image, face.points)))
    transform = similarity(five_points(face.points), teacher.template)
    with torch.no_grad():
        vector = teacher.embed(crop(image, transform, teacher.size))[0].double().numpy()
    return Face(path.stem, vector / np.linalg.norm(vector), np.asarray(prepared.subject.attributes))


def report(
    what: str, people: Sequence[Face], names: np.ndarray, strangers: Sequence[Face], chosen: Sequence[np.ndarray]
) -> None:
    """Print the cosine to the other photos of the person, and how often that person is the most similar one."""
    vectors, who = np.stack([face.vector for face in people]), np.unique(names, return_inverse=True)[1]
    cosines, hits = [], []
    for i, numbers in enumerate(chosen):
        others = np.arange(len(people)) != i
        own, first = [], []
        for number in numbers:
            cosine = vectors @ strangers[number].vector
            own.append(cosine[others & (names == names[i])].mean())
            first.append(max(np.unique(names), key=lambda n: float(cosine[others & (names == n)].mean())) == names[i])
        cosines.append(np.mean(own))
        hits.append(np.mean(first))
    c, r = estimate(np.array(cosines), who), estimate(np.array(hits), who)
    texts = [f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in (c, r)]
    print(f"{what:22} mean cosine {texts[0]}, rank 1 {texts[1]}")


if __name__ == "__main__":
    sys.exit(main())
