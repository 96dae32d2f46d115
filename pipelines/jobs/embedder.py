"""Train the built-in recognizer on a folder of portraits, and on random people that the built-in model shows."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..core.threads import one_thread
from ..imaging.formats import find_images
from ..methods.appearance.canonical import REGIONS
from ..methods.appearance.latent import AppearanceLatent, appearance_of, random_codes
from ..methods.appearance.network import TRAITS, load_model
from ..methods.appearance.render import prepare, render
from ..recognition.embedder import Embedder, save_embedder
from ..training.embedder import Recipe, Teacher, Views, agreement, make_views, train_embedder
from ..training.loop import subject_of
from ..training.parts import Packing, Parts
from ..training.portraits import read_pixels, read_portrait

VIEWS, PEOPLE, PERSON_VIEWS = 6, 5, 2
"""Views of each portrait, random people shown on each portrait, and views of each of these."""
SPREAD, PERSON_IOD = 1.2, 60.0
"""Deviation of the random people's codes, and the inter-ocular distance in pixels at which they are rendered."""
FACES_A_PART = 30
HELD_OUT_PARTS = 2
"""Parts whose faces are not trained on; the student is compared with the teacher on them."""
MIN_PARTS = 2 * HELD_OUT_PARTS
PACKING = Packing[Views](
    lambda views: {"crops": views.crops, "vectors": views.vectors},
    lambda state: Views(state["crops"], state["vectors"]),
)


def embedder_from_folder(
    images: Path,
    teacher: Path,
    output: Path,
    recipe: Recipe,
    start: Path | None = None,
    workers: int | None = None,
    logs: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Distill a recognizer and write it; an interrupted training is resumed.

    Args:
        images: folder of portraits, one person each.
        teacher: Python file of the teacher, as ``open_teacher`` takes it.
        output: file to write.
        start: file of a recognizer to go on with.

    Returns:
        Statistics: numbers of portraits and views, and the agreement with the teacher on portraits held out.

    Raises:
        InputError: there are too few portraits, or the teacher's file does not define a teacher.
    """
    paths = find_images(images)
    count = len(range(0, len(paths), FACES_A_PART))
    jobs = [(paths[i * FACES_A_PART : (i + 1) * FACES_A_PART], teacher, recipe.seed * count + i) for i in range(count)]
    if len(jobs) < MIN_PARTS:
        raise InputError(
            f"{images.name} contains {len(paths)} images; a recognizer needs at least"
            f" {(MIN_PARTS - 1) * FACES_A_PART + 1} portraits"
        )
    open_teacher(teacher)
    network = None if start is None else Embedder(start).network
    subject = subject_of(np.empty(0), [(p.name, p.stat().st_size) for p in [*paths, teacher]], recipe.seed)
    parts = Parts(output.with_suffix(".views"), subject)
    made = parts.run("views", _views, jobs, PACKING, workers or os.cpu_count() or 1, progress, "making views of faces")
    views = Views.joined(made[:-HELD_OUT_PARTS])
    student = train_embedder(views, recipe, network, output.with_suffix(".state"), logs, progress=progress)
    cosine, correlation = agreement(student, Views.joined(made[-HELD_OUT_PARTS:]))
    save_embedder(output, student)
    output.with_suffix(".state").unlink(missing_ok=True)
    parts.remove()
    return {
        "portraits": len(paths),
        "views": len(views.crops),
        "cosine to the teacher": round(cosine, 3),
        "correlation of similarities": round(correlation, 3),
    }


def open_teacher(path: Path) -> Teacher:
    """Run a Python file that defines a teacher.

    The file defines ``load()``, which returns a torch module; ``SIZE``, the side of its crops; ``TEMPLATE``, its five
    points ``(5, 2)``; and ``BGR``, the order of its channels. The module takes values from 0 to 255.

    Raises:
        InputError: the file is missing, or does not define all of these.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path} is not a Python file; name one that defines a teacher")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        network, size, template, bgr = module.load(), int(module.SIZE), np.asarray(module.TEMPLATE), bool(module.BGR)
    except AttributeError as error:
        raise InputError(f"{path.name} does not define a teacher ({error})") from None

    def embed(crops: Tensor) -> Tensor:
        vectors: Tensor = network((crops.flip(1) if bgr else crops) * 255)
        return vectors

    return Teacher(embed, template, size)


def render_people(
    image: Tensor, points: np.ndarray, embedding: np.ndarray, count: int, generator: torch.Generator
) -> list[tuple[Tensor, np.ndarray]]:
    """Show random people of the built-in model on one face.

    Returns:
        Image ``(1, 3, h, w)`` and landmarks ``(68, 2)`` of each.
    """
    model = load_model()
    subject = prepare(model, image, points, embedding).scaled(PERSON_IOD)
    people = []
    for _ in range(count):
        codes = {name: random_codes(model, name, 1, SPREAD, generator)[0] for name in REGIONS}
        latent = AppearanceLatent(codes, subject.attributes[TRAITS], 0)
        patch, _, new_points = render(model, subject, appearance_of(model, latent, subject), 1.0)
        people.append((patch, new_points))
    return people


@one_thread()
def _views(paths: Sequence[Path], teacher_file: Path, seed: int) -> Views:
    teacher, generator = open_teacher(teacher_file), torch.Generator().manual_seed(seed)
    originals, people = [], []
    for path in paths:
        portrait = read_portrait(path)
        if portrait is None:
            continue
        image = read_pixels(path)
        originals.append((image, portrait.points))
        people += render_people(image, portrait.points, portrait.embedding, PEOPLE, generator)
    return Views.joined(
        [make_views(originals, teacher, VIEWS, generator), make_views(people, teacher, PERSON_VIEWS, generator)]
    )
