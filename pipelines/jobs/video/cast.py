"""Decide once for each person of a video what is shown in all frames."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...core.errors import InputError
from ...core.parallel import Workers, result
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
from .frames import Studio, try_elsewhere
from .people import Person
from .plan import VideoPlan
from .roles import Role, Tried, try_identity

MORE_TRIES = 2
"""Times as many identities are tried as for a photo: each frame must pass, and the search is made once."""


@dataclass(frozen=True)
class Casting:
    """What the search for identities needs.

    Attributes:
        recognizers: all that are asked, in the order of the people's means.
        studio: opens the same method in another process.
        workers: that try identities, several at once where there are several.
    """

    method: AnyMethod
    settings: Settings
    recognizers: Sequence[FaceRecognizer]
    studio: Studio
    workers: Workers


def cast_people(
    people: Sequence[Person],
    plan: VideoPlan,
    casting: Casting,
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
    method, settings = casting.method, casting.settings
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
        seed = face_seed(settings.seed, (0.0, 0.0, 0.0, 0.0), person.number)
        if given is None:
            identity = _searched(casting, person, prepared[person.number], seed, step)
        else:
            identity = _shown(casting, person, prepared[person.number], given, seed, step)
        if isinstance(method, SettlingMethod):
            identity = method.settled(prepared[person.number], identity, settings.strength)
        cast[person.number] = Role(identity, person.means)
    return cast


def _shown(
    casting: Casting, person: Person, prepared: Sequence[Any], given: GivenIdentity, seed: int, progress: Progress
) -> MethodIdentity:
    """What the method renders for a given identity."""
    if isinstance(given, MethodIdentity):
        return given
    if isinstance(given, Pseudonyms):
        vectors = {r.name: mean for r, mean in zip(casting.recognizers, person.means, strict=True)}
        given = pseudonym_of(given, casting.recognizers[0].name, vectors)
    assert isinstance(given, Identity)
    return casting.method.from_identity(prepared, given, seed, progress)


def _searched(
    casting: Casting, person: Person, prepared: Sequence[Any], seed: int, progress: Progress
) -> MethodIdentity:
    """The first identity that is comfortably far from the original, or the farthest one."""
    best: Tried | None = None
    tries = MORE_TRIES * casting.settings.tries
    search = _search_elsewhere if casting.workers.count > 1 else _search_here
    for tried in search(casting, person, prepared, [seed + attempt for attempt in range(tries)], progress):
        if best is None or tried.margin > best.margin:
            best = tried
        if tried.margin >= COMFORTABLE:
            break
    assert best is not None
    return best.identity


def _search_here(
    casting: Casting, person: Person, prepared: Sequence[Any], seeds: Sequence[int], progress: Progress
) -> Iterator[Tried]:
    strength = casting.settings.strength
    for done, seed in enumerate(seeds):
        step = part_of(progress, done, len(seeds))
        yield try_identity(casting.method, casting.recognizers, prepared, person.means, seed, strength, step)


def _search_elsewhere(
    casting: Casting, person: Person, prepared: Sequence[Any], seeds: Sequence[int], progress: Progress
) -> Iterator[Tried]:
    """The same, with the next tries under way in the other processes."""
    packed, work = pickle.dumps(casting.studio), (tuple(prepared), person.means)
    waiting: deque[Future[Tried]] = deque()
    for done in range(len(seeds)):
        while len(waiting) < casting.workers.count and done + len(waiting) < len(seeds):
            seed = seeds[done + len(waiting)]
            waiting.append(casting.workers.submit(try_elsewhere, packed, *work, seed))
        yield result(waiting.popleft(), partial(progress, done, len(seeds), "searching an identity"))


def _prepared(person: Person, method: AnyMethod) -> list[Any]:
    """The person's views that the method can replace, analyzed; those with something in front only if there are no
    others."""
    able = [p for p in person.portraits if method.unsupported_reason(p.face) is None]
    found = [method.prepare(View(p.pixels, p.face, person.means[0])) for p in able]
    return [one for one in found if method.occlusion_reason(one) is None] or found
