"""Decide once for each person of a video what is shown in all frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.progress import Progress, part_of, silent
from ...core.seeds import face_seed
from ...identity.identity import Identity
from ...identity.pseudonym import Pseudonyms
from ...methods.base import AnyMethod, SettlingMethod, View
from ...methods.identities import MethodIdentity
from ...recognition.base import FaceRecognizer
from ..people import pseudonym_of
from ..replace import COMFORTABLE
from ..settings import GivenIdentity, Settings
from ..verify import verify
from .people import Person
from .plan import VideoPlan

MORE_TRIES = 2
"""Times as many identities are tried as for a photo: each frame must pass, and the search is made once."""


@dataclass(frozen=True)
class Role:
    """What is shown on one person, and how the recognizers know them.

    Attributes:
        identity: shown in all frames.
        embeddings: the mean ``(D,)`` for each recognizer; each frame is compared with them.
    """

    identity: MethodIdentity
    embeddings: tuple[np.ndarray, ...]


Cast = Mapping[int, Role]
"""Number of a person to their role; whoever has none is redacted."""


def cast_people(
    people: Sequence[Person],
    plan: VideoPlan,
    settings: Settings,
    method: AnyMethod,
    recognizers: Sequence[FaceRecognizer],
    given: GivenIdentity | None = None,
    progress: Progress = silent,
) -> dict[int, Role]:
    """Find an identity for each treated person.

    Args:
        people: with their views.
        given: shown instead of searched identities: one for all, or ``Pseudonyms``.

    Raises:
        InputError: the given identity does not fit the method, or is a list.
    """
    if given is not None and not isinstance(given, (Identity, MethodIdentity, Pseudonyms)):
        raise InputError("a video takes one identity for all people, or pseudonyms; connect one of these")
    if isinstance(given, Identity) and len(given) != 1:
        raise InputError(f"a video takes one identity for all people, got {len(given)}")
    treated = [p for p in people if p.number in plan.people and p.number not in plan.kept]
    prepared = {p.number: _prepared(p, method) for p in treated}
    able = [p for p in treated if prepared[p.number]]
    if settings.same_person and given is None and able:
        views = [view for p in able for view in prepared[p.number]]
        given = method.sample_identity(views, settings.seed, progress)
    cast = {}
    for done, person in enumerate(able):
        step = part_of(progress, done, len(able))
        progress(done, len(able), "searching identities")
        casting = _Casting(method, settings, recognizers, person, prepared[person.number])
        identity = casting.identity(given, step)
        if isinstance(method, SettlingMethod):
            identity = method.settled(prepared[person.number], identity)
        cast[person.number] = Role(identity, person.means)
    return cast


class _Casting:
    """Finds the identity of one person."""

    def __init__(
        self,
        method: AnyMethod,
        settings: Settings,
        recognizers: Sequence[FaceRecognizer],
        person: Person,
        prepared: Sequence[Any],
    ) -> None:
        self._method, self._settings, self._recognizers = method, settings, recognizers
        self._person, self._prepared = person, prepared
        self._seed = face_seed(settings.seed, (0.0, 0.0, 0.0, 0.0), person.number)

    def identity(self, given: GivenIdentity | None, progress: Progress) -> MethodIdentity:
        if isinstance(given, MethodIdentity):
            return given
        if isinstance(given, Pseudonyms):
            vectors = {r.name: mean for r, mean in zip(self._recognizers, self._person.means, strict=True)}
            given = pseudonym_of(given, self._recognizers[0].name, vectors)
        if isinstance(given, Identity):
            return self._method.from_identity(self._prepared, given, self._seed, progress)
        best, best_margin = None, -np.inf
        tries = MORE_TRIES * self._settings.tries
        for attempt in range(tries):
            step = part_of(progress, attempt, tries)
            identity = self._method.sample_identity(self._prepared, self._seed + attempt, step)
            margin = self._margin(identity)
            if margin > best_margin:
                best, best_margin = identity, margin
            if margin >= COMFORTABLE:
                break
        assert best is not None
        return best

    def _margin(self, identity: MethodIdentity) -> float:
        """Distance to the original in thresholds, at the view and by the recognizer that find both most alike."""
        margins = []
        for view in self._prepared:
            change = self._method.render(view, identity, self._settings.strength)
            margins.append(verify(change, self._person.means, self._recognizers).margin)
        return min(margins)


def _prepared(person: Person, method: AnyMethod) -> list[Any]:
    """The person's views that the method can replace, analyzed; those with something in front only if there are no
    others."""
    able = [p for p in person.portraits if method.unsupported_reason(p.face) is None]
    found = [method.prepare(View(p.pixels, p.face, person.means[0])) for p in able]
    return [one for one in found if method.occlusion_reason(one) is None] or found
