"""Identities: are drawn people like real ones, do levels move away, are pseudonyms stable, does the default show what
it is given?

    python benchmarks/identity.py [FACES] [--photos PHOTOS] [--levels N] [--views N] [--train] [--only PART]

FACES is a folder of portraits (default ../shared/data/synthetic_faces beside the repository); every fifth one was held
out when the shipped sampler was trained and is what drawn people are compared with.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# A second thread of numpy's linear algebra would fight with the workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import LEVELS, IdentitySampler, builtin_sampler
from faceveil.pipelines.identity.pseudonym import Key, Ledger
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.people import embed_identities
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.portraits import HELD_OUT
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.recognition.catalog import open_recognizer
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer
from faceveil.pipelines.recognition.thresholds import threshold_of
from faceveil.pipelines.training.parallel import parallel
from faceveil.pipelines.training.portraits import Portrait, embed_portraits, find_portraits
from faceveil.pipelines.training.sampler import Recipe, train_sampler
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EDGES = np.arange(0.0, 0.85, 0.05)
TWICE = 0.05
KEY_PAIRS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="?", default=DATA / "synthetic_faces")
    parser.add_argument(
        "--photos", type=Path, default=DATA / "photos", help="real portraits, and two photos each of three people"
    )
    parser.add_argument("--levels", type=int, default=200, help="identities that the ten levels are averaged over")
    parser.add_argument("--only", choices=("thresholds", "likeness", "levels", "linking", "survival"), help="one part")
    parser.add_argument(
        "--train", action="store_true", help="also train the shipped sampler anew, and say how long it took"
    )
    parser.add_argument("--views", type=int, default=50, help="changed views of each of a hundred people")
    options = parser.parse_args()
    portraits = find_portraits(options.faces)
    vectors = embed_portraits(portraits, open_recognizer())
    held_out = np.arange(len(vectors)) % HELD_OUT == 0
    learned, held = vectors[~held_out], vectors[held_out]
    sampler = builtin_sampler("dlib")
    if options.train:
        begun = time.perf_counter()
        sampler = train_sampler(learned, "dlib", learned.shape[1], Recipe(steps=3000))
        print(f"training on {len(learned)} faces: {time.perf_counter() - begun:.0f} s (goal: 600)")
    parts: dict[str, Callable[[], bool]] = {
        "thresholds": lambda: thresholds(learned, options.photos),
        "likeness": lambda: likeness(sampler, learned, held),
        "levels": lambda: levels(sampler, held[: options.levels]),
        "linking": lambda: linking(
            sampler, [p for p, h in zip(portraits, held_out, strict=True) if h], options.photos, options.views
        ),
        "survival": lambda: survival(options.photos),
    }
    passed = [part() for name, part in parts.items() if options.only in (None, name)]
    return 0 if all(passed) else 1


def likeness(sampler: IdentitySampler, learned: np.ndarray, held: np.ndarray) -> bool:
    """Distances among drawn people against those among real ones."""
    drawn = sampler.sample(len(held), 1).vectors
    others = learned[: len(held)]
    real_near, drawn_near = _nearest(others, held), _nearest(drawn, held)
    real_pairs, drawn_pairs = _pairs(held), _pairs(drawn)
    print("distance           " + " ".join(f"{e:5.2f}" for e in EDGES[:-1]))
    for name, values in (
        ("nearest, real", real_near),
        ("nearest, drawn", drawn_near),
        ("pairs, real", real_pairs),
        ("pairs, drawn", drawn_pairs),
    ):
        share = np.histogram(values, EDGES)[0] / len(values)
        print(f"{name:18} " + " ".join(f"{s:5.2f}" for s in share))
    apart = _nearest(held, learned)
    # The data hold some pictures twice: those are not two people.
    closest, usual = _nearest(drawn, learned).min(), np.percentile(apart[apart > TWICE], 1)
    return all(
        [
            _bar("nearest held-out, drawn / real", abs(drawn_near.mean() / real_near.mean() - 1), 0.10),
            _bar("diversity of pairs, drawn / real", abs(drawn_pairs.mean() / real_pairs.mean() - 1), 0.10),
            _bar(f"closest to a training face {closest:.3f}, real ones at 1 % {usual:.3f}", usual - closest, 0.0),
        ]
    )


def levels(sampler: IdentitySampler, people: np.ndarray) -> bool:
    means = [
        float(np.mean([sampler.level(p, level, i).cosines[0] for i, p in enumerate(people)]))
        for level in range(1, LEVELS + 1)
    ]
    print(f"mean cosine to the original, levels 1 to 10 ({len(people)} people): " + " ".join(f"{m:.2f}" for m in means))
    return _bar("largest step between levels (below 0: strictly away)", float(np.diff(means).max()), -1e-9)


def linking(sampler: IdentitySampler, portraits: list[Portrait], photos: Path, views: int) -> bool:
    """A hundred synthetic people, changed views of each of their pictures, under two keys; then two photos each of
    three real people."""
    people, vectors = strangers(sampler, portraits, 100)
    jobs = [(p.path, turn) for p in people for turn in range(views)]
    seen = list(parallel(embed_view, jobs, os.cpu_count() or 1, silent, "views"))
    found = [(i // views, v) for i, v in enumerate(seen) if v is not None]
    ledgers = [Ledger(Key(bytes([turn]) * 32), 5000, sampler.mean, sampler.std) for turn in range(2)]
    numbers = [[ledger.number(Identity(v, "dlib")) for v in vectors] for ledger in ledgers]
    stable = sum(ledgers[0].number(Identity(v, "dlib")) == numbers[0][who] for who, v in found)
    grown = len(ledgers[0].entries) - len(people)
    # One pair of keys says little: with a hundred people chance alone reaches .2.
    linked = float(np.mean([correlation(sampler, vectors) for _ in range(KEY_PAIRS)]))
    pairs = [ledgers[0].number(_photo(photos / f"person_{who}_{i}.jpg")) for who in "abc" for i in (1, 2)]
    kept = [pairs[i] == pairs[i + 1] for i in (0, 2, 4)]
    print(
        f"{len(people)} people, {len(seen)} views, a face found in {len(found)}; {stable} keep their pseudonym, {grown}"
        " were taken for somebody new"
    )
    print(f"real people: {sum(kept)} of 3 pairs share a pseudonym, {len(set(pairs))} different ones")
    return all(
        [
            _bar("views that lose their pseudonym", 1 - stable / len(found), 0.0),
            _bar("people who share one", len(people) - len(set(numbers[0])), 0.0),
            _bar("real pairs that lose it, or share one", 3 - sum(kept) + abs(3 - len(set(pairs))), 0.0),
            _bar(
                f"|correlation| of numbers under two keys, mean of {KEY_PAIRS} pairs (3 errors)",
                abs(linked),
                3 / np.sqrt(len(people) * KEY_PAIRS),
            ),
            thief(sampler, ledgers[0], vectors),
        ]
    )


def correlation(sampler: IdentitySampler, vectors: list[np.ndarray]) -> float:
    """Of the numbers that the same people get under two new keys."""
    ledgers = [Ledger(Key.new(), 5000, sampler.mean, sampler.std) for _ in range(2)]
    return float(np.corrcoef([[ledger.number(Identity(v, "dlib")) for v in vectors] for ledger in ledgers])[0, 1])


def strangers(
    sampler: IdentitySampler, portraits: list[Portrait], count: int
) -> tuple[list[Portrait], list[np.ndarray]]:
    """The first portraits of people who do not resemble each other: the data hold some twice."""
    people: list[Portrait] = []
    vectors: list[np.ndarray] = []
    for portrait in portraits:
        vector = portrait.embedding / np.linalg.norm(portrait.embedding)
        if not vectors or sampler.cosine(vector, np.stack(vectors)).max() < 0.5:
            people.append(portrait)
            vectors.append(vector)
        if len(people) == count:
            break
    return people, vectors


def embed_view(path: Path, turn: int) -> np.ndarray | None:
    """A portrait turned, scaled, shifted, relit, blurred, with noise, as a JPEG, perhaps mirrored: found and embedded
    anew."""
    rng = np.random.default_rng([turn, *path.name.encode()])
    with Image.open(path) as picture:
        view = picture.convert("RGB")
    if rng.random() < 0.5:
        view = ImageOps.mirror(view)
    side = int(rng.integers(128, 513))
    view = (
        ImageOps.expand(view, 40, (128, 128, 128))
        .rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
        .resize((side, side))
    )
    for kind, reach in ((ImageEnhance.Brightness, 0.3), (ImageEnhance.Contrast, 0.3), (ImageEnhance.Color, 0.5)):
        view = kind(view).enhance(1 + rng.uniform(-reach, reach))
    view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0, side / 400)))
    pixels = np.asarray(view, dtype=np.float32) + rng.normal(0, rng.uniform(0, 8), (side, side, 3))
    packed = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(packed, "JPEG", quality=int(rng.integers(40, 96)))
    image = torch.from_numpy(np.array(Image.open(packed))).movedim(-1, 0)[None].float() / 255
    faces = [f for f in detect_faces(image, rotated=False) if f.landmarks]
    return default_recognizer().embed(image, faces[0].points) if faces else None


def thief(sampler: IdentitySampler, ledger: Ledger, vectors: list[np.ndarray]) -> bool:
    """Who holds the ledger and photos of all people, but not the key, guesses who is who by hashing under keys of his
    own."""
    guesses = right = 0
    for turn in range(10):
        key = Key(bytes([100 + turn]) * 32)
        own = Ledger(key, ledger.size, sampler.mean, sampler.std)
        own.entries = ledger.entries
        for who, vector in enumerate(vectors[:20]):
            counts = own.agreements(Identity(vector, "dlib"))
            # With a tie he picks at random.
            best = np.flatnonzero(np.array(counts) == max(counts))
            right += (who in best) / len(best)
            guesses += 1
    chance = 1 / len(ledger.entries)
    return _bar(f"thief's hits beyond chance ({chance:.3f})", right / guesses - chance, 3 * np.sqrt(chance / guesses))


def survival(photos: Path) -> bool:
    """How much of a wanted identity the embedded default shows: cosine of wanted and obtained around the mean of all
    people."""
    sampler = builtin_sampler("dlib")
    method = AppearanceMethod()
    settings = Settings(policy=Policy.always("pass"))
    before, after = [], []
    for path in sorted(photos.glob("portrait_*.jpg")):
        pixels = load_image(path).pixels
        own = embed_identities(pixels)
        for seed in range(2):
            wanted = Identity(sampler.away_from(own.vector, seed).vectors, "dlib")
            shown = embed_identities(anonymize_batch(pixels, settings, method=method, identity=wanted).pixels)
            before.append(float(sampler.cosine(own.vector, wanted.vector)[0, 0]))
            after.append(float(sampler.cosine(shown.vector, wanted.vector)[0, 0]))
    print(
        f"cosine to a wanted identity, {len(after)} pictures: {np.mean(before):.2f} before, {np.mean(after):.2f} shown"
        f" (worst {np.min(after):.2f})"
    )
    return _bar("pictures that come no nearer", float(np.mean(np.array(after) <= np.array(before))), 0.0)


def thresholds(vectors: np.ndarray, photos: Path) -> bool:
    """dlib's threshold: false matches between synthetic strangers, and the real pairs on either side of it."""
    limit = threshold_of("dlib").distance
    pairs = _pairs(vectors)
    people = [[_photo(photos / f"person_{who}_{i}.jpg").vector for i in (1, 2)] for who in "abc"]
    same = [float(np.linalg.norm(a - b)) for a, b in people]
    other = [float(np.linalg.norm(a - b)) for i, p in enumerate(people) for q in people[i + 1 :] for a in p for b in q]
    print(
        f"dlib, unit vectors: same person below {limit:.3f}; genuine {max(same):.3f} at most, impostors"
        f" {min(other):.3f} at least; {np.mean(pairs < limit):.2%} of {len(pairs)} pairs of synthetic strangers lie"
        " below"
    )
    return all(
        [
            _bar("largest genuine distance", max(same), limit),
            _bar("threshold below the smallest impostor distance", limit, min(other)),
        ]
    )


def _photo(path: Path) -> Identity:
    return embed_identities(load_image(path).pixels)


def _nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(0, 2 - 2 * a @ b.T)).min(1)


def _pairs(a: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(0, 2 - 2 * a @ a.T))[np.triu_indices(len(a), 1)]


def _bar(name: str, value: float, limit: float) -> bool:
    met = value <= limit
    print(f"{'met ' if met else 'MISS'}  {name:62} {value:8.3f}  (<= {limit:g})")
    return met


if __name__ == "__main__":
    sys.exit(main())
