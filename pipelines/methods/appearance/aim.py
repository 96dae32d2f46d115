"""Show a given identity: the residual codes whose rendering a recogniser sees nearest to a wanted vector.

The response model makes the recogniser's answer linear in the codes, so the codes follow from one ridge regression; what a
rendering shows instead of the forecast is added to the target of the next round.
"""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ...identity.identity import Identity
from ...identity.recognise import Recogniser
from .frame import REGIONS
from .network import TRAITS, AppearanceModel
from .render import Subject, render
from .search import LIMIT, TRIAL_IOD, Found, Persona, look_of
from .shape import region_moves

LENGTH = 1.515
"""Mean length of dlib's vectors over 4,000 faces; identities keep their direction only."""
ROUNDS = 5
RIDGE = 2e-4
"""Cost of a code's square against a squared distance of embeddings: beyond, faces fall apart before they come nearer."""
_STEP = 0.5


def aim(model: AppearanceModel, subjects: list[Subject], wanted: Identity, recogniser: Recogniser, seed: int = 0) -> Found:
    """A persona for one person seen in one or more photos that looks like ``wanted`` to the recogniser.

    Raises:
        InputError: the identity belongs to another recogniser's space.
    """
    if wanted.space != recogniser.name:
        raise InputError(f"the appearance method shows identities of {recogniser.name}, but this one is of {wanted.space}; embed it with {recogniser.name}")
    target = wanted.vector * LENGTH
    traits = np.mean([s.attributes[TRAITS] for s in subjects], axis=0)
    systems = [_linearise(model, subject, traits) for subject in subjects]
    jacobian = np.concatenate([j for j, _ in systems])
    normal = jacobian.T @ jacobian + RIDGE * len(subjects) * np.eye(jacobian.shape[1])
    small = [subject.scaled(TRIAL_IOD) for subject in subjects]
    errors = [np.zeros_like(target) for _ in subjects]
    best: Found | None = None
    for _ in range(ROUNDS):
        rest = np.concatenate([target + error - start for error, (_, start) in zip(errors, systems, strict=True)])
        z = np.clip(np.linalg.solve(normal, jacobian.T @ rest), -LIMIT, LIMIT)
        persona = Persona(dict(zip(REGIONS, np.split(z.astype(np.float32), np.cumsum([_size(model, n) for n in REGIONS])[:-1]), strict=True)), traits, seed)
        distances = []
        for place, subject in enumerate(small):
            window, _, points = render(model, subject, look_of(model, persona, subject), 1.0)
            shown = recogniser.embed(window, points)
            distances.append(recogniser.distance(shown, target))
            errors[place] = errors[place] + 0.7 * (target - shown)
        if best is None or max(distances) < max(best.distances):
            best = Found(persona, tuple(distances), ROUNDS)
    assert best is not None
    return best


def _size(model: AppearanceModel, name: str) -> int:
    return model.regions[name].residual.shape[1]


def _linearise(model: AppearanceModel, subject: Subject, traits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embedding as ``jacobian z + start``, ``(D, Z)`` and ``(D,)``, for the codes of all regions in a row."""
    attributes = subject.attributes.copy()
    attributes[TRAITS] = traits
    start = subject.embedding + model.response.base(subject.embedding)
    columns = []
    for name in REGIONS:
        k, size = model.regions[name].components, _size(model, name)
        steps = model.person(name, np.concatenate([np.zeros((1, size)), _STEP * np.eye(size)]))
        joint = model.expected(name, attributes) + steps
        moves = region_moves(model.shapes, subject.fit, subject.shape, name, joint[:, k:])
        answers = model.response.region(name, joint[:, :k] - subject.codes[name], moves)
        start = start + answers[0]
        columns.append((answers[1:] - answers[0]).T / _STEP)
    return np.concatenate(columns, 1), start
