"""Anonymize photos in three steps: plan (find and select faces), render (change pixels), verify (ask recognizers)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..core.errors import InputError, PolicyStop
from ..core.progress import Preview, Progress, part_of, silent, unseen
from ..core.seeds import face_seed
from ..faces.detect import detect_faces
from ..faces.detectors import Detector
from ..faces.face import Faces
from ..faces.select import Selection
from ..faces.transparency import opaque_where_changed
from ..identity.identity import Identity
from ..identity.pseudonym import Pseudonyms
from ..imaging.image import LoadedImage, as_image
from ..methods.base import AnyMethod, View
from ..methods.identities import MethodIdentity
from ..methods.registry import open_method
from ..recognition.base import FaceRecognizer
from ..recognition.catalog import built_in_recognizers
from ..recognition.dlib_resnet import default_recognizer
from .people import pseudonym_of
from .plan import Plan, make_plan
from .policy import Action, Policy
from .render import Canvas
from .replace import FaceTreatment
from .report import FaceReport, Report
from .settings import GivenIdentity, Result, Settings

Watch = Callable[[int, Tensor], None]
"""Gets the position of a face in ``Result.faces``, or ``WHOLE``, and a mask ``(B, 1, H, W)`` of what it changed."""
MAX_VIEWS = 3
"""Views of a tracked person on which an identity is searched."""
WHOLE = -1
"""Stands for an image that was redacted as a whole."""


def anonymize(
    image: str | Path | Image.Image | np.ndarray | Tensor,
    method: str = Settings.method,
    strength: float = 1.0,
    seed: int = 0,
    faces: str = "all",
    policy: Action | Policy = "redact",
) -> Result:
    """Take the identity out of one image.

    Args:
        image: a path, a Pillow image, an array ``(H, W[, C])`` or a tensor ``(1, 3, H, W)`` in [0, 1].
        method: ``appearance``, ``referencenet`` or ``inswapper`` (a new face), or a redaction: ``solid``, ``pixelate``,
            ``blur``. The two methods in the middle open their weights from the folder ``models``.
        strength: 0 to 1.5.
        seed: the same seed repeats the result.
        faces: ``all``, ``largest``, ``smallest``, ``left``, ``right`` or numbers such as ``0,2``.
        policy: ``redact``, ``stop`` or ``pass`` for faces that cannot be replaced safely.

    Raises:
        InputError: the image or a setting cannot be used.
        PolicyStop: the policy is ``stop`` and a face would not be protected.
    """
    loaded = as_image(image)
    chosen = policy if isinstance(policy, Policy) else Policy.always(policy)
    settings = Settings(method=method, strength=strength, seed=seed, selection=Selection(faces), policy=chosen)
    return anonymize_loaded(loaded, settings)


def anonymize_batch(
    pixels: Tensor,
    settings: Settings,
    faces: Faces | None = None,
    detector: Detector | None = None,
    method: AnyMethod | None = None,
    identity: GivenIdentity | None = None,
    recognizers: Sequence[FaceRecognizer] = (),
    alpha: Tensor | None = None,
    progress: Progress = silent,
    preview: Preview = unseen,
    in_place: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Take the identity out of a batch ``(B, 3, H, W)`` of images.

    Args:
        faces: a plan from an earlier detection or drawn by hand; detected when omitted.
        method: an opened method; the one that ``settings`` names is opened with its default options when omitted.
        identity: shown instead of a searched one: an ``Identity`` of the method's space or a ``MethodIdentity`` for all
            selected faces, one for each of them, or ``Pseudonyms``.
        recognizers: asked in addition to the built-in ones; the one that finds the faces most alike decides.
        alpha: ``(B, 1, H, W)`` in [0, 1]; faces that only transparency shows are redacted, and alpha becomes opaque
            where pixels change.
        progress: called before each image, face and rendering of a search; it may raise to interrupt.
        preview: called with each finished face, cut out.
        in_place: whether ``pixels`` may be overwritten, which saves a copy of them.
        watch: called with each face's number and the pixels that it changed.

    Raises:
        InputError: the plan belongs to other images, or the identity does not fit the method.
        PolicyStop: the policy is ``stop`` and a face would not be protected.
    """
    if method is None and not settings.redacts_only:
        method = open_method(settings.method)
    asked = (*built_in_recognizers(), *recognizers)
    for recognizer in recognizers:
        # Raises where no threshold is known: such a recognizer cannot verify.
        recognizer.threshold_at()
    canvas = Canvas(pixels, in_place, watched=watch is not None)
    plan = make_plan(canvas.pixels, settings, asked, faces, detector, alpha, progress)
    notes = _treat_empty(canvas, plan, settings.policy.no_face)
    if watch is not None and bool(canvas.recent.any()):
        watch(WHOLE, canvas.recent)
        canvas.forget()
    wanted = _wanted(identity, plan, settings, method, canvas, asked, progress)
    treatment = FaceTreatment(canvas, settings, method, asked)
    rows = {i: _kept(plan, i, settings) for i in range(len(plan.faces)) if i not in plan.selected}
    shown: list[MethodIdentity | None] = [None] * len(plan.faces)
    for done, i in enumerate(plan.selected):
        progress(done, len(plan.selected), "replacing faces")
        step = part_of(progress, done, len(plan.selected))
        treated = treatment.treat(
            plan.faces[i], plan.numbers[i], plan.embeddings.get(i), wanted[i], step, seen=i not in plan.unseen
        )
        rows[i], shown[i] = treated.report, treated.identity
        preview(canvas.cut_out(plan.faces[i]))
        if watch is not None:
            watch(i, canvas.recent)
            canvas.forget()
    progress(len(plan.selected), max(len(plan.selected), 1), "replacing faces")
    report = Report(tuple(rows[i] for i in sorted(rows)), tuple(notes))
    opaque = opaque_where_changed(alpha, canvas.changed)
    first = LoadedImage(canvas.pixels[:1], None if opaque is None else opaque[:1])
    return Result(canvas.pixels, canvas.changed, plan.faces, report, tuple(shown), first, opaque)


def anonymize_loaded(
    image: LoadedImage,
    settings: Settings,
    faces: Faces | None = None,
    method: AnyMethod | None = None,
    identity: GivenIdentity | None = None,
    recognizers: Sequence[FaceRecognizer] = (),
    in_place: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Take the identity out of one loaded image, its alpha included; ``Result.first`` has its file's depth and profile.

    The arguments and errors are those of ``anonymize_batch``.
    """
    result = anonymize_batch(
        image.pixels, settings, faces, None, method, identity, recognizers, image.alpha, in_place=in_place, watch=watch
    )
    return replace(result, first=replace(image, pixels=result.pixels, alpha=result.alpha))


def search_identity(
    images: Sequence[LoadedImage], settings: Settings, method: AnyMethod, detector: Detector | None = None
) -> MethodIdentity:
    """One new identity for the person whose face is the largest selected one in each image, searched over all of them.

    Raises:
        InputError: none of the images shows a face that the method can replace.
    """
    prepared = []
    for image in images:
        chosen = sorted(settings.selection.of(detect_faces(image.pixels, detector)), key=lambda f: -f.area)
        face = next((f for f in chosen if f.landmarks and method.unsupported_reason(f) is None), None)
        if face is not None:
            embedding = default_recognizer().embed(image.pixels, face.points)
            prepared.append(method.prepare(View(image.pixels, face, embedding)))
    if not prepared:
        raise InputError("none of the images shows a face that can be replaced, so no shared identity can be searched")
    return method.sample_identity(prepared, settings.seed)


def _treat_empty(canvas: Canvas, plan: Plan, action: Action) -> list[str]:
    """Let the policy act on images in which no face was found; returns a sentence for each, and for each image of which
    the plan left out all faces."""
    with_faces = {face.image for face in plan.faces}
    notes = [
        f"no face was chosen{_where(canvas, index)}, so nothing was changed"
        for index in range(len(canvas.pixels))
        if index not in with_faces and index not in plan.empty
    ]
    for index in plan.empty:
        where = _where(canvas, index)
        if action == "stop":
            raise PolicyStop(f"no face was found{where}, so nothing was handed on (policy stop)")
        if action == "redact":
            canvas.redact_image(index)
            notes.append(f"no face was found{where}, so the whole image was redacted (policy redact)")
        else:
            notes.append(f"no face was found{where}; the image was passed unchanged (policy pass)")
    return notes


def _where(canvas: Canvas, index: int) -> str:
    return f" in image {index}" if len(canvas.pixels) > 1 else ""


def _wanted(
    identity: GivenIdentity | None,
    plan: Plan,
    settings: Settings,
    method: AnyMethod | None,
    canvas: Canvas,
    asked: Sequence[FaceRecognizer],
    progress: Progress,
) -> dict[int, Identity | MethodIdentity | None]:
    """What each selected face is to show; None where an identity is to be searched."""
    if identity is None and settings.same_person and method is not None:
        identity = _shared(plan, settings, method, canvas, progress)
    if isinstance(identity, Pseudonyms):
        names = [recognizer.name for recognizer in asked]
        seen = {i: dict(zip(names, plan.embeddings[i], strict=True)) for i in plan.selected if i in plan.embeddings}
        return {i: pseudonym_of(identity, names[0], seen[i]) if i in seen else None for i in plan.selected}
    if identity is None and method is not None:
        return dict.fromkeys(plan.selected) | _tracked(plan, settings, method, canvas, progress)
    if identity is None or isinstance(identity, MethodIdentity):
        return dict.fromkeys(plan.selected, identity)
    # In the order of the list of faces, as a user counts them.
    order = sorted(plan.selected)
    if isinstance(identity, Identity):
        if len(identity) == 1:
            return dict.fromkeys(order, identity)
        _check_count(len(identity), len(order))
        return {i: identity[place] for place, i in enumerate(order)}
    kept = [one for one in identity if one is not None]
    if len(identity) != len(order) and len(kept) == 1:
        return dict.fromkeys(order, kept[0])
    _check_count(len(identity), len(order))
    return dict(zip(order, identity, strict=True))


def _check_count(identities: int, faces: int) -> None:
    if identities != faces:
        raise InputError(f"{identities} identities were given for {faces} faces; give one for all, or one for each")


def _shared(
    plan: Plan, settings: Settings, method: AnyMethod, canvas: Canvas, progress: Progress
) -> MethodIdentity | None:
    """One identity for all selected faces, searched over their images together."""
    views = [
        View(canvas.pixels[face.image : face.image + 1], face, plan.embeddings[i][0])
        for i in sorted(plan.selected)
        if i in plan.embeddings and method.unsupported_reason(face := plan.faces[i]) is None
    ]
    if not views:
        return None
    return method.sample_identity([method.prepare(v) for v in views], settings.seed, progress)


def _tracked(
    plan: Plan, settings: Settings, method: AnyMethod, canvas: Canvas, progress: Progress
) -> dict[int, MethodIdentity]:
    """One identity for each person whom a plan tracks through several images, searched on their largest views."""
    people: dict[int, list[int]] = {}
    for i in plan.selected:
        track = plan.faces[i].track
        if track is not None:
            people.setdefault(track, []).append(i)
    several = {track: found for track, found in people.items() if len({plan.faces[i].image for i in found}) > 1}
    wanted: dict[int, MethodIdentity] = {}
    for done, (track, found) in enumerate(sorted(several.items())):
        step = part_of(progress, done, len(several))
        able = [i for i in found if i in plan.embeddings and method.unsupported_reason(plan.faces[i]) is None]
        best = sorted(able, key=lambda i: -plan.faces[i].area)[:MAX_VIEWS]
        if not best:
            continue
        rows = [canvas.image(plan.faces[i].image) for i in best]
        views = [View(image, plan.faces[i], plan.embeddings[i][0]) for image, i in zip(rows, best, strict=True)]
        seed = face_seed(settings.seed, plan.faces[best[0]].box, track)
        shared = method.sample_identity([method.prepare(v) for v in views], seed, step)
        wanted |= dict.fromkeys(found, shared)
    return wanted


def _kept(plan: Plan, position: int, settings: Settings) -> FaceReport:
    face = plan.faces[position]
    return FaceReport(
        image=face.image,
        number=plan.numbers[position],
        box=face.box,
        origin=face.origin,
        outcome="kept",
        selected=False,
        method="",
        strength=0.0,
        seed=settings.seed,
        reason="not selected",
    )
