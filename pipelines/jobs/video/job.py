"""Anonymize one video: scan it, decide what is shown on whom, render it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import InputError
from ...core.parallel import Workers, fitting_memory
from ...core.progress import Progress, silent
from ...faces.detectors import Detector
from ...faces.select import WORDS, Selection
from ...imaging.video import VideoSource
from ...imaging.video_write import VideoFormat
from ...methods.base import AnyMethod, StreamingMethod
from ...methods.registry import method_specs, open_method
from ...recognition.base import FaceRecognizer
from ...recognition.catalog import built_in_recognizers
from ..people import is_selected
from ..settings import GivenIdentity, Settings
from ..vault import VaultWriter
from .cast import Casting, cast_people
from .frames import FrameTreatment, Studio
from .parts import PART_SECONDS, scan_in_parts
from .people import Person, embedded
from .plan import PlannedTrack, VideoPlan
from .portraits import Portraits, quality_of
from .redact import check_empty, fits_one_pass, redact_in_one_pass
from .render import ShowFrame, redacted_whole, render
from .report import VideoReport
from .scan import Scan, scan
from .stream import stream

SCANNED, CAST = 0.3, 0.4
"""Share of a job's time after which the scan, and the search for identities, are done."""
STEPS = 1000
"""Of a job's progress."""
MIN_SCANNERS = 3
"""Processes from which parts of a video are scanned apart."""
MIN_FRAMES = 60
"""Frames with a face for which a further process pays: it needs some seconds to start."""


@dataclass(frozen=True)
class VideoJob:
    """What all videos of a run share.

    Attributes:
        settings: how faces are treated; the selection is one of people.
        format: of the written video.
        options: of the method.
        method: opened; opened from the settings when omitted.
        identity: shown instead of searched ones.
        verifiers: further recognizers as ``KIND:FILE``, opened as ``recognizers``.
        detector: of faces; the built-in one when omitted.
        processes: that scan and render; what cores, memory and method allow when omitted.
        workers: of a cluster, used instead of processes; the job does not stop them.
    """

    settings: Settings
    format: VideoFormat = VideoFormat()
    options: object | None = None
    method: AnyMethod | None = None
    identity: GivenIdentity | None = None
    recognizers: Sequence[FaceRecognizer] = ()
    verifiers: tuple[str, ...] = ()
    detector: Detector | None = None
    processes: int | None = None
    workers: Workers | None = None

    def plan(self, source: VideoSource, progress: Progress = silent) -> tuple[VideoPlan, tuple[Person, ...]]:
        """Find, track and select the faces of a video.

        Raises:
            InputError: the video is damaged, or a person is selected who is not there.
        """
        found = self._scan(source, progress)
        plan = _without_small(VideoPlan.of(source, found), self.settings.selection.min_size)
        return replace(plan, kept=_kept(plan, found.people, self.settings)), found.people

    def _scan(self, source: VideoSource, progress: Progress) -> Scan:
        settings, rate = self.settings, float(source.info.rate)
        landmarks = not settings.redacts_only or self._picks
        parts = int(source.info.duration // PART_SECONDS)
        count = min(parts, self._allowed)
        # On two cores, one pass takes no longer: it searches ahead in a thread.
        if self.detector is None and count >= (2 if self.workers else MIN_SCANNERS):
            with self._workers(count) as workers:
                found = scan_in_parts(
                    source, self._asked, workers, settings.sensitivity, landmarks, PART_SECONDS, progress
                )
            if found is not None:
                return found
        frames, expected = source.frames(), source.info.frames
        return scan(frames, rate, self._asked, self.detector, settings.sensitivity, landmarks, expected, progress)

    def run(
        self,
        source: VideoSource,
        target: Path,
        progress: Progress = silent,
        show: ShowFrame | None = None,
        vault: VaultWriter | None = None,
    ) -> VideoReport:
        """Anonymize a video.

        Args:
            vault: gets the original pixels of all faces.

        Raises:
            InputError: the video is damaged, or a setting does not fit it.
            OutputError: the target cannot be written.
            PolicyStop: the policy is ``stop`` and a face would not be protected.
        """
        if self.settings.redacts_only and not self._picks and fits_one_pass(source):
            return redact_in_one_pass(source, target, self.settings, self.format, self.detector, progress, show, vault)
        plan, people = self.plan(source, _share(progress, 0, SCANNED))
        return self.render(source, plan, target, people, progress, show, vault)

    def render(
        self,
        source: VideoSource,
        plan: VideoPlan,
        target: Path,
        people: Sequence[Person] | None = None,
        progress: Progress = silent,
        show: ShowFrame | None = None,
        vault: VaultWriter | None = None,
    ) -> VideoReport:
        """Render a plan.

        Args:
            people: of the plan with their views; looked for in the video when omitted.

        Raises:
            As ``run``; InputError where the plan is of another video.
        """
        settings = self.settings
        plan.check(source)
        if not plan.tracks:
            check_empty(source, settings.policy, vault is not None)
            if settings.policy.no_face == "redact":
                return redacted_whole(source, target, self.format, progress)
        asked, rendering = self._asked, _share(progress, CAST, 1)
        if settings.redacts_only:
            studio, redaction = Studio(settings, None), FrameTreatment(settings, None, asked)
            return render(source, plan, studio, {}, target, self.format, redaction, None, rendering, show, vault)
        if people is None:
            people = enrolled(source, plan, asked, _share(progress, 0, SCANNED))
        method = self.method or open_method(settings.method, self.options)
        if isinstance(method, StreamingMethod) and method.streams:
            if self.identity is not None or vault is not None:
                raise InputError(
                    "a reenacted video takes no given identity and no vault; leave out the network for clips"
                )
            return stream(source, plan, settings, method, asked, target, self.format, rendering, show)
        with self._workers(self._count(plan)) as workers:
            studio = Studio(settings, self.options, self.verifiers)
            casting = Casting(method, settings, asked, studio, workers)
            cast = cast_people(people, plan, casting, self.identity, _share(progress, SCANNED, CAST))
            treatment = FrameTreatment(settings, method, asked) if workers.count == 1 else None
            return render(source, plan, studio, cast, target, self.format, treatment, workers, rendering, show, vault)

    @property
    def _asked(self) -> tuple[FaceRecognizer, ...]:
        return (*built_in_recognizers(), *self.recognizers)

    @property
    def _picks(self) -> bool:
        """Whether people must be told apart although all faces are only redacted."""
        s = self.settings
        return bool(s.include or s.exclude or s.selection.which != "all" or s.selection.min_size > 0)

    def _count(self, plan: VideoPlan) -> int:
        """How many processes render."""
        spec = method_specs().get(self.settings.method)
        # A parser, a method on a graphics chip, and recognizers without a name cannot be sent to another process.
        unnamed = len(self.recognizers) != len(self.verifiers)
        if self.settings.parser is not None or unnamed or spec is None or not spec.one_thread:
            return 1
        frames = len({i for t in plan.tracks if plan.is_treated(t) for i in t.track.sightings})
        return max(1, min(self._allowed, frames // MIN_FRAMES))

    @property
    def _allowed(self) -> int:
        if self.workers is not None:
            return self.workers.count
        return self.processes or min(os.cpu_count() or 1, fitting_memory())

    def _workers(self, count: int) -> AbstractContextManager[Workers]:
        """Those of the cluster, or as many processes."""
        return nullcontext(self.workers) if self.workers is not None and count > 1 else Workers(count)


def enrolled(
    source: VideoSource, plan: VideoPlan, recognizers: Sequence[FaceRecognizer], progress: Progress = silent
) -> tuple[Person, ...]:
    """Read the views of a plan's people from the video, and embed them."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    collected: dict[int, Portraits] = {}
    for place, planned in enumerate(plan.tracks):
        if planned.person is None or not plan.is_treated(planned):
            continue
        collected[place] = Portraits(plan.rate)
        for frame, sighting in planned.track.sightings.items():
            if quality_of(sighting) > 0:
                wanted.setdefault(frame, []).append((place, frame))
    for item in source.frames():
        progress(item.index, max(plan.frames, item.index + 1), "reading faces")
        for place, frame in wanted.get(item.index, ()):
            collected[place].offer(frame, item.pixels, plan.tracks[place].track.sightings[frame])
    people: dict[int, Person] = {}
    for place, portraits in collected.items():
        planned, views = plan.tracks[place], portraits.views
        if not views or planned.person is None:
            continue
        person = people.setdefault(planned.person, Person(planned.person))
        person.add(planned.track.number, views, embedded(views, recognizers))
    return tuple(people[number] for number in sorted(people))


def _without_small(plan: VideoPlan, min_size: float) -> VideoPlan:
    """Leave out people, and tracks that belong to nobody, who are smaller than this in all frames."""
    if min_size <= 0:
        return plan
    sizes: dict[object, float] = {}
    for planned in plan.tracks:
        largest = max(s.size for s in planned.track.sightings.values())
        sizes[_owner(planned)] = max(largest, sizes.get(_owner(planned), 0.0))
    tracks = (replace(t, treat=t.treat and sizes[_owner(t)] >= min_size) for t in plan.tracks)
    return replace(plan, tracks=tuple(tracks))


def _owner(planned: PlannedTrack) -> object:
    return ("track", planned.track.number) if planned.person is None else ("person", planned.person)


def _kept(plan: VideoPlan, people: Sequence[Person], settings: Settings) -> frozenset[int]:
    """Numbers of the people who are not treated. Faces that nobody knows are always treated."""
    chosen = {p.number for p in people}
    if settings.include or settings.exclude:
        recognizer = built_in_recognizers()[0]
        chosen = {p.number for p in people if is_selected(recognizer, p.means[0], settings.include, settings.exclude)}
    chosen &= _selected(plan, settings.selection)
    return frozenset(p.number for p in people) - frozenset(chosen)


def _selected(plan: VideoPlan, selection: Selection) -> set[int]:
    """People whom the selection names: ``largest`` and the like compare the median of their boxes."""
    import numpy as np

    boxes: dict[int, np.ndarray] = {}
    for number in plan.people:
        rows = [s.box for t in plan.tracks if t.person == number for s in t.track.sightings.values()]
        boxes[number] = np.median(np.stack(rows), axis=0)
    if selection.which in WORDS:
        if selection.which == "all" or not boxes:
            return set(boxes)
        key = {
            "largest": lambda b: -float(np.prod(b[2:] - b[:2])),
            "smallest": lambda b: float(np.prod(b[2:] - b[:2])),
            "left": lambda b: float(b[0] + b[2]),
            "right": lambda b: -float(b[0] + b[2]),
        }[selection.which]
        return {min(boxes, key=lambda n: key(boxes[n]))}
    wanted = {int(part) for part in selection.which.split(",")}
    missing = sorted(wanted - set(boxes))
    if missing and not selection.allow_missing:
        raise InputError(
            f"there is no person {missing[0]}: {len(boxes)} {'was' if len(boxes) == 1 else 'were'} found, numbered from"
            " 0; faceveil plan lists them; --allow-missing goes on without them"
        )
    return wanted


def _share(progress: Progress, start: float, end: float) -> Progress:
    """The progress of a part of the job that takes this share of its time."""

    def report(done: int, total: int, what: str) -> None:
        progress(round(STEPS * (start + (end - start) * min(1.0, done / max(total, 1)))), STEPS, what)

    return report
