"""One run of ``faceveil anonymize``: treat the files, in several processes where that pays, and write what goes beside
them. Images come first; each video is spread over the processes frame by frame.

The workers of a cluster get whole files, too; only where there are fewer videos than workers, each video is spread.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..core.errors import FaceVeilError, InputError, PolicyStop, WorkerLost
from ..core.files import write_whole
from ..core.parallel import fitting_memory, parallel
from ..core.progress import Progress, part_of
from ..jobs.cluster import Cluster, ClusterWorkers, on_cluster
from ..jobs.tasks import Task
from ..methods.registry import method_specs
from .terminal import OK, SOME_FAILED, UNPROTECTED, progress_bar, say
from .treated import Treated

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from ..jobs.settings import GivenIdentity
    from ..methods.identities import MethodIdentity
    from .anonymize_file import Opened

MAX_SHARED = 6
"""Images that a shared identity is searched over; more cost time and change little."""
MIN_IMAGES = 4
"""Images for which one more process pays: it needs some seconds to start."""


def run(options: argparse.Namespace, tasks: Sequence[Task]) -> int:
    """Treat all files and return the exit code."""
    spread = not options.cluster or _spreads_videos(options, tasks)
    images, videos = ([t for t in tasks if (t.is_video and spread) == kind] for kind in (False, True))
    count = processes(options, len(images))
    # Processes open what they need themselves: they would only wait while it is loaded here as well.
    needed = count == 1 or videos or options.same_person or options.cluster
    here = _opened_here(options, images) if needed else None
    shared = here.identity if here is not None and options.same_person else None
    done: list[Treated] = []
    with progress_bar() as progress:
        try:
            for treated in _treated(options, here, shared, images, count, progress) if images else ():
                _tell(treated)
                done.append(treated)
        except WorkerLost as error:
            done += [Treated(task, error=error) for task in images[len(done) :]]
        for treated in _spread(options, here, videos, progress):
            _tell(treated)
            done.append(treated)
    code = _conclude(done)
    try:
        _write_side_files(options, done)
    except FaceVeilError as error:
        say(f"error: {error}", error=True)
        return code if code == UNPROTECTED else SOME_FAILED
    return code


def processes(options: argparse.Namespace, images: int) -> int:
    """How many processes treat the images.

    Raises:
        InputError: several were asked for, and a ledger needs one.
    """
    ordered = _is_ordered(options)
    if options.jobs is not None:
        if ordered and options.jobs > 1:
            raise InputError("a ledger of pseudonyms is filled in the order of the images; use --jobs 1 or --no-ledger")
        return min(int(options.jobs), images)
    spec = method_specs().get(options.method)
    if ordered or options.debug or not (spec is None or spec.one_thread):
        return 1
    return max(1, min(os.cpu_count() or 1, images // MIN_IMAGES, fitting_memory()))


def _is_ordered(options: argparse.Namespace) -> bool:
    """Whether the files must be treated in order: the first photo of a person decides the pseudonym."""
    return options.pseudonyms is not None and not options.no_ledger


def _opened_here(options: argparse.Namespace, images: Sequence[Task]) -> Opened:
    """What the flags name, with the identity that all images share."""
    from .anonymize_file import Opened

    opened = Opened(options)
    if options.same_person and opened.method is not None and images:
        opened.identity = _shared_identity(opened, images)
    return opened


def _treated(
    options: argparse.Namespace,
    here: Opened | None,
    shared: GivenIdentity | None,
    tasks: Sequence[Task],
    count: int,
    progress: Progress,
) -> Iterator[Treated]:
    if options.cluster:
        return _on_cluster(options, shared, tasks, progress)
    if count == 1:
        assert here is not None
        return parallel(here.treat, [(task,) for task in tasks], 1, progress, "anonymizing")
    packed = pickle.dumps((options, shared))
    return parallel(_treat_elsewhere, [(packed, task) for task in tasks], count, progress, "anonymizing", chunk=1)


def _on_cluster(
    options: argparse.Namespace, shared: GivenIdentity | None, tasks: Sequence[Task], progress: Progress
) -> Iterator[Treated]:
    workers = 1 if _is_ordered(options) else _workers_of(options)
    alone = argparse.Namespace(**{**vars(options), "jobs": 1, "run": None})
    packed = pickle.dumps((alone, shared))
    cluster = Cluster(workers, options.address, options.worker_gpus)
    return on_cluster(_treat_elsewhere, [(packed, task) for task in tasks], cluster, progress, "anonymizing")


def _spreads_videos(options: argparse.Namespace, tasks: Sequence[Task]) -> bool:
    """Whether parts and frames of each video go to the workers of a cluster, instead of whole videos."""
    spec, videos = method_specs().get(options.method), sum(task.is_video for task in tasks)
    # A redaction takes little more time than decoding and encoding.
    return spec is not None and spec.one_thread and videos < _workers_of(options)


def _spread(
    options: argparse.Namespace, here: Opened | None, videos: Sequence[Task], progress: Progress
) -> Iterator[Treated]:
    """Treat videos one after the other, each in all processes, or on all workers of the cluster."""
    if not videos:
        return
    assert here is not None
    cluster = Cluster(_workers_of(options), options.address, options.worker_gpus)
    with ClusterWorkers(cluster) if options.cluster else nullcontext() as here.workers:
        for place, task in enumerate(videos):
            yield here.treat(task, part_of(progress, place, len(videos)))


def _workers_of(options: argparse.Namespace) -> int:
    return options.jobs or os.cpu_count() or 1


def _treat_elsewhere(packed: bytes, task: Task) -> Treated:
    return _opened(packed).treat(task)


@lru_cache(maxsize=1)
def _opened(packed: bytes) -> Opened:
    """What the flags name, opened once in a process; ``packed`` comes from the process that started it."""
    from .anonymize_file import Opened

    options, identity = pickle.loads(packed)
    opened = Opened(options)
    if identity is not None:
        opened.identity = identity
    return opened


def _shared_identity(opened: Opened, tasks: Sequence[Task]) -> MethodIdentity:
    from ..imaging.load import load_image
    from ..jobs.photo import search_identity
    from ..jobs.remote import staged

    assert opened.method is not None
    images = []
    for task in tasks[:MAX_SHARED]:
        # A bad file is reported when its turn comes.
        with suppress(FaceVeilError), staged(replace(task, target_url="")) as local:
            images.append(load_image(local.source))
    return search_identity(images, opened.settings, opened.method)


def _tell(treated: Treated) -> None:
    if treated.report is not None:
        say(f"{treated.task.shown}: " + treated.report.text().replace("\n", "\n  "))


def _conclude(done: Sequence[Treated]) -> int:
    failed = [d for d in done if d.error is not None]
    for d in failed:
        say(f"failed: {d.task.source}: {d.error}", error=True)
    if len(done) > 1:
        say(f"{len(done) - len(failed)} of {len(done)} files done")
    if any(isinstance(d.error, PolicyStop) or (d.report is not None and not d.report.safe) for d in done):
        return UNPROTECTED
    return SOME_FAILED if failed else OK


def _write_side_files(options: argparse.Namespace, done: Sequence[Treated]) -> None:
    reports = [d.report for d in done if d.report is not None]
    if options.report:
        # Numbered by order: a report must not contain the names of source files.
        rows: list[dict[str, Any]] = [{"image": i, **json.loads(r.to_json())} for i, r in enumerate(reports)]
        write_whole(options.report, json.dumps(rows, indent=2).encode())
    sheet: list[Image.Image] = [row for d in done for row in d.rows]
    if options.preview and sheet:
        from ..viz.sheets import stack_rows

        write_whole(options.preview, stack_rows(sheet))
    if options.save_identity:
        _save_shown(options.save_identity, [one for d in done for one in d.identities])


def _save_shown(path: Path, shown: Sequence[MethodIdentity]) -> None:
    """Save the only identity that was shown.

    Raises:
        InputError: none was shown, or several.
    """
    from ..methods.identities import save_any_identity

    different = {pickle.dumps(one): one for one in shown}
    if len(different) != 1:
        count = len(different) or "no"
        raise InputError(
            f"{count} identities were shown, so none was saved in {path.name}; choose one face with --faces, or give"
            " all the same identity with --same-person"
        )
    save_any_identity(path, next(iter(different.values())))
