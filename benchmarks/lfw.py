"""The LFW protocol for de-identification: the second image of each pair is anonymized, the first is not.

    python benchmarks/lfw.py IMAGES PAIRS.txt [--method appearance] [--recognizer KIND:FILE | --judge FILE.py]
        [--option NAME=VALUE ...]

IMAGES has LFW's layout, NAME/NAME_0001.jpg; PAIRS.txt has LFW's format: a head line, then "NAME I J" for pairs of one
person and "NAME I OTHER J" for two. Printed, before and after: accuracy at the best threshold, and the true-positive
rate at a false-positive rate of 1e-3. A protected face gives an accuracy near .5 and a rate near 0. The recognizer must
not be one that the method uses; the default, dlib's, guides the method appearance, so give another one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.embedder import open_teacher
from faceveil.pipelines.methods.base import AnyMethod, View
from faceveil.pipelines.methods.registry import method_spec, open_method
from faceveil.pipelines.recognition.base import FaceRecognizer, unit
from faceveil.pipelines.recognition.catalog import open_recognizer
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer
from torch import Tensor

FALSE_POSITIVES = 1e-3
Pair = tuple[Path, Path, bool]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--method", default="appearance")
    parser.add_argument("--recognizer", default="dlib")
    parser.add_argument("--judge", type=Path, help="recognizer as faceveil train embedder --teacher takes it")
    parser.add_argument("--option", nargs="*", default=[], help="of the method, as NAME=VALUE")
    options = parser.parse_args()
    pairs = read_pairs(options.images, options.pairs.read_text(encoding="utf-8"))
    judge = _judge(options.recognizer, options.judge)
    method = open_method(options.method, _options(options.method, options.option))
    before, after, same, lost = [], [], [], 0
    for first, second, is_same in pairs:
        faces = [_face(path) for path in (first, second)]
        if faces[0] is None or faces[1] is None:
            lost += 1
            continue
        (a, face_a), (b, face_b) = faces[0], faces[1]
        vectors = [judge(a, face_a), judge(b, face_b), judge(anonymized(method, b, face_b), face_b)]
        before.append(float(vectors[0] @ vectors[1]))
        after.append(float(vectors[0] @ vectors[2]))
        same.append(is_same)
    print(f"{len(same)} pairs, {sum(same)} of one person; {lost} left out because no face was found")
    print(f"{'':12}{'accuracy':>10}{'TPR at 1e-3':>13}")
    for name, scores in (("originals", before), (options.method, after)):
        truth, values = np.array(same), np.array(scores)
        print(f"{name:12}{accuracy(values, truth):10.3f}{true_positive_rate(values, truth):13.3f}")
    return 0


def read_pairs(images: Path, text: str) -> list[Pair]:
    """The pairs of a file in LFW's format."""
    pairs = []
    for line in text.splitlines()[1:]:
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) == 3:
            pairs.append((_path(images, words[0], words[1]), _path(images, words[0], words[2]), True))
        elif len(words) == 4:
            pairs.append((_path(images, words[0], words[1]), _path(images, words[2], words[3]), False))
    return pairs


def accuracy(scores: np.ndarray, same: np.ndarray) -> float:
    """Share of pairs on the right side of the best threshold."""
    cuts = np.concatenate([[-np.inf], np.sort(scores)])
    return float(max(((scores > cut) == same).mean() for cut in cuts))


def true_positive_rate(scores: np.ndarray, same: np.ndarray) -> float:
    """Share of pairs of one person above the threshold that at most 1e-3 of the other pairs reach."""
    strangers = np.sort(scores[~same])[::-1]
    if not len(strangers) or not same.any():
        return float("nan")
    return float((scores[same] > strangers[int(FALSE_POSITIVES * len(strangers))]).mean())


def anonymized(method: AnyMethod, image: Tensor, face: Face) -> Tensor:
    """The image with its face replaced at strength 1; unverified."""
    prepared = method.prepare(View(image, face, default_recognizer().embed(image, face.points)))
    change = method.render(prepared, method.sample_identity([prepared], 0), 1.0)
    new, (x, y) = image.clone(), change.origin
    new[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
    return new


def _judge(recognizer: str, judge: Path | None) -> Any:
    if judge is not None:
        from faceveil.pipelines.faces.align import crop, five_points, similarity

        teacher = open_teacher(judge)

        def embed(image: Tensor, face: Face) -> np.ndarray:
            transform = similarity(five_points(face.points), teacher.template)
            return unit(teacher.embed(crop(image, transform, teacher.size))[0].detach().double().numpy())

        return embed
    kind, _, file = recognizer.partition(":")
    opened: FaceRecognizer = open_recognizer(kind, Path(file) if file else None)
    return lambda image, face: unit(opened.embed(image, face.points))


def _options(method: str, given: list[str]) -> object:
    kind = method_spec(method).options
    hints = {f.name: type(f.default) if f.default is not None else Path for f in fields(kind)}
    values = dict(word.split("=", 1) for word in given)
    return kind(
        **{name: hints[name](value) if hints[name] is not bool else value == "1" for name, value in values.items()}
    )


def _face(path: Path) -> tuple[Tensor, Face] | None:
    image = load_image(path).pixels
    found = [face for face in detect_faces(image, rotated=False) if face.landmarks]
    return (image, max(found, key=lambda f: f.area)) if found else None


def _path(images: Path, name: str, number: str) -> Path:
    stem = f"{name}_{int(number):04}"
    return next(iter(sorted((images / name).glob(f"{stem}.*"))), images / name / f"{stem}.jpg")


if __name__ == "__main__":
    sys.exit(main())
