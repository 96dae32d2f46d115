"""Train the built-in recognizer on a folder of portraits, and on random people that the built-in model shows."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..core.threads import one_thread
from ..faces.align import crop
from ..imaging.formats import find_images
from ..methods.appearance.canonical import REGIONS
from ..methods.appearance.latent import MAX_CODE, AppearanceLatent, appearance_of, random_codes
from ..methods.appearance.network import TRAITS, AppearanceModel, load_model
from ..methods.appearance.render import prepare, render
from ..recognition.embedder import embedder_transform, save_embedder
from ..training.embedder import MARGIN, STORED, Recipe, Teacher, agreement, train_embedder
from ..training.loop import subject_of
from ..training.parts import Packing, Parts
from ..training.portraits import read_pixels, read_portrait

PEOPLE, PERSON_IOD = 5, 60.0
"""Default number of random people shown on each portrait, and the inter-ocular distance in pixels at which they are
rendered."""
SPREAD, DISTINCTIVENESS, VARIATION = 1.2, 1.1, 0.5
"""Deviation of random codes; factor of a stored person's codes, and the share of random codes added to them."""
FACES_A_PART = 30
HELD_OUT_PARTS = 2
"""Parts whose faces are not trained on; the student is compared with the teacher on them."""
MIN_PARTS = 2 * HELD_OUT_PARTS
PACKING = Packing[Tensor](lambda faces: {"faces": faces}, lambda state: state["faces"])


def embedder_from_folder(
    images: Path,
    teacher: Path,
    output: Path,
    recipe: Recipe,
    workers: int | None = None,
    logs: Path | None = None,
    progress: Progress = silent,
    people: int = PEOPLE,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Distill a recognizer and write it; an interrupted training is resumed.

    Args:
        images: folder of portraits, one person each.
        teacher: Python file of the teacher, as ``open_teacher`` takes it.
        output: file to write.
        recipe: of the training; its ``group`` is set here.
        people: random people shown on each portrait.
        device: where the student is trained; the faces are rendered on the CPU.

    Returns:
        Statistics: numbers of portraits and faces, and the agreement with the teacher on portraits held out.

    Raises:
        InputError: there are too few portraits, or the teacher's file does not define a teacher.
    """
    paths = find_images(images)
    count = len(range(0, len(paths), FACES_A_PART))
    jobs = [(paths[i * FACES_A_PART : (i + 1) * FACES_A_PART], recipe.seed * count + i, people) for i in range(count)]
    if len(jobs) < MIN_PARTS:
        raise InputError(
            f"{images.name} contains {len(paths)} images; a recognizer needs at least"
            f" {(MIN_PARTS - 1) * FACES_A_PART + 1} portraits"
        )
    opened = open_teacher(teacher)
    opened.check_hints(recipe.hints)
    subject = subject_of(np.empty(0), [(p.name, p.stat().st_size) for p in paths], recipe.seed, people)
    parts = Parts(output.with_suffix(".faces"), subject)
    made = parts.run("faces", aligned_faces, jobs, PACKING, workers or os.cpu_count() or 1, progress, "rendering faces")
    faces = torch.cat(made[:-HELD_OUT_PARTS])
    recipe = replace(recipe, group=1 + people)
    state = output.with_suffix(".state")
    student = train_embedder(faces, opened, recipe, state, logs, progress=progress, device=device)
    cosine, correlation = agreement(student, opened, torch.cat(made[-HELD_OUT_PARTS:]))
    save_embedder(output, student)
    state.unlink(missing_ok=True)
    parts.remove()
    return {
        "portraits": len(paths),
        "faces": len(faces),
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
        return Teacher(module.load(), np.asarray(module.TEMPLATE), int(module.SIZE), bool(module.BGR))
    except AttributeError as error:
        raise InputError(f"{path.name} does not define a teacher ({error})") from None


@one_thread()
def aligned_faces(paths: Sequence[Path], seed: int, people: int) -> Tensor:
    """Aligned faces ``(N, 3, 144, 144)``, RGB, uint8: each portrait, then the random people shown on it."""
    generator = torch.Generator().manual_seed(seed)
    faces = [torch.zeros(0, 3, STORED, STORED, dtype=torch.uint8)]
    for path in paths:
        portrait = read_portrait(path)
        if portrait is None:
            continue
        image = read_pixels(path)
        faces.append(_aligned(image, portrait.points))
        faces += [_aligned(*p) for p in render_people(image, portrait.points, portrait.embedding, people, generator)]
    return torch.cat(faces)


def render_people(
    image: Tensor, points: np.ndarray, embedding: np.ndarray, count: int, generator: torch.Generator
) -> list[tuple[Tensor, np.ndarray]]:
    """Show random people of the built-in model on one face; every second one is similar to a stored person.

    Returns:
        Image ``(1, 3, h, w)`` and landmarks ``(68, 2)`` of each.
    """
    model = load_model()
    subject = prepare(model, image, points, embedding).scaled(PERSON_IOD)
    people = []
    for i in range(count):
        latent = AppearanceLatent(_codes(model, bool(i % 2), generator), subject.attributes[TRAITS], 0)
        patch, _, new_points = render(model, subject, appearance_of(model, latent, subject), 1.0)
        people.append((patch, new_points))
    return people


def _codes(model: AppearanceModel, stored: bool, generator: torch.Generator) -> dict[str, np.ndarray]:
    codes = {name: random_codes(model, name, 1, SPREAD, generator)[0] for name in REGIONS}
    if not stored:
        return codes
    person = int(torch.randint(len(model.people), (1,), generator=generator))
    mixed = {n: DISTINCTIVENESS * model.people.codes[n][person] + VARIATION * z for n, z in codes.items()}
    return {n: np.clip(z, -MAX_CODE, MAX_CODE).astype(np.float32) for n, z in mixed.items()}


def _aligned(image: Tensor, points: np.ndarray) -> Tensor:
    transform = embedder_transform(points)
    transform[:, 2] += MARGIN
    return (crop(image, transform, STORED).clamp(0, 1) * 255).round().byte()
