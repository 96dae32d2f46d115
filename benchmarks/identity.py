"""Benchmark identities: the sampler's distribution and levels, pseudonyms, dlib's threshold, and how closely the
appearance method renders a given identity.

    python benchmarks/identity.py [FACES] [--photos PHOTOS] [--levels N] [--views N] [--train] [--only PART]

FACES is a folder of portraits (default ../shared/data/licensed_faces beside the repository). Every fifth one was held
out when the built-in sampler was trained; sampled identities are compared with these.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# More threads in numpy's linear algebra would compete with the worker processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from faceveil.pipelines.core.parallel import parallel
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import LEVELS, IdentitySampler, builtin_sampler
from faceveil.pipelines.identity.ledger import Key, Ledger
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import from_pillow
from faceveil.pipelines.jobs.people import embed_identities
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.portraits import HELD_OUT_EVERY
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.recognition.catalog import open_recognizer
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer
from faceveil.pipelines.recognition.thresholds import threshold_of
from faceveil.pipelines.training.portraits import Portrait, embed_portraits, find_portraits
from faceveil.pipelines.training.sampler import Recipe, train_sampler
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EDGES = np.arange(0.0, 0.85, 0.05)
DUPLICATE_DISTANCE = 0.05
"""Two faces of the data that are closer than this are taken for duplicates."""
KEY_PAIRS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="?", default=DATA / "licensed_faces")
    parser.add_argument(
        "--photos", type=Path, default=DATA / "photos", help="real portraits, and two photos each of three people"
    )
    parser.add_argument("--levels", type=int, default=200, help="identities that the ten levels are averaged over")
    parser.add_argument(
        "--only", choices=("thresholds", "likeness", "levels", "linking", "survival"), help="run one part only"
    )
    parser.add_argument(
        "--train", action="store_true", help="train a sampler and print the duration, instead of the built-in one"
    )
    parser.add_argument("--views", type=int, default=50, help="augmented views of each of 100 people")
    options = parser.parse_args()
    portraits = find_portraits(options.faces)
    vectors = embed_portraits(portraits, open_recognizer())
    is_held_out = np.arange(len(vectors)) % HELD_OUT_EVERY == 0
    train, held_out = vectors[~is_held_out], vectors[is_held_out]
    sampler = builtin_sampler("dlib")
    if options.train:
        begun = time.perf_counter()
        sampler = train_sampler(train, "dlib", train.shape[1], Recipe(steps=3000))
        print(f"training on {len(train)} faces: {time.perf_counter() - begun:.0f} s (goal: 600)")
    parts: dict[str, Callable[[], bool]] = {
        "thresholds": lambda: thresholds(train, options.photos),
        "likeness": lambda: likeness(sampler, train, held_out),
        "levels": lambda: levels(sampler, held_out[: options.levels]),
        "linking": lambda: linking(
            sampler, [p for p, held in zip(portraits, is_held_out, strict=True) if held], options.photos, options.views
        ),
        "survival": lambda: survival(options.photos),
    }
    passed = [part() for name, part in parts.items() if options.only in (None, name)]
    return 0 if all(passed) else 1


def likeness(sampler: IdentitySampler, train: np.ndarray, held_out: np.ndarray) -> bool:
    """Compare the distances between sampled identities with those between the faces of the data."""
    sampled = sampler.sample(len(held_out), 1).vectors
    others = train[: len(held_out)]
    data_nearest, sampled_nearest = _nearest(others, held_out), _nearest(sampled, held_out)
    data_pairs, sampled_pairs = _pairs(held_out), _pairs(sampled)
    print("distance           " + " ".join(f"{e:5.2f}" for e in EDGES[:-1]))
    for name, values in (
        ("nearest, data", data_nearest),
        ("nearest, sampled", sampled_nearest),
        ("pairs, data", data_pairs),
        ("pairs, sampled", sampled_pairs),
    ):
        share = np.histogram(values, EDGES)[0] / len(values)
        print(f"{name:18} " + " ".join(f"{s:5.2f}" for s in share))
    print(
        f"recall {covered(sampled, held_out):.2f} of the held-out faces (other faces {covered(others, held_out):.2f})"
    )
    print(f"precision {covered(held_out, sampled):.2f} (other faces {covered(held_out, others):.2f})")
    told, other = classified(sampled, held_out), classified(others, held_out)
    print(f"a classifier tells sampled from held-out faces in {told:.0%} (other faces {other:.0%}, chance 50%)")
    distances = _nearest(held_out, train)
    # The data contain duplicate images, which are not two people.
    closest = _nearest(sampled, train).min()
    usual = np.percentile(distances[distances > DUPLICATE_DISTANCE], 1)
    return all(
        [
            _bar("nearest held-out, sampled / data", abs(sampled_nearest.mean() / data_nearest.mean() - 1), 0.10),
            _bar("diversity of pairs, sampled / data", abs(sampled_pairs.mean() / data_pairs.mean() - 1), 0.10),
            _bar(f"closest to a training face {closest:.3f}, data at 1 % {usual:.3f}", usual - closest, 0.0),
        ]
    )


def covered(manifold: np.ndarray, points: np.ndarray, neighbors: int = 3) -> float:
    """Share of ``points`` within the third-neighbor distance of a member of ``manifold``: recall and precision of
    Kynkaanniemi et al. 2019."""
    inner = np.sort(np.linalg.norm(manifold[:, None] - manifold[None], axis=2), axis=1)[:, neighbors]
    distances = np.linalg.norm(points[:, None] - manifold[None], axis=2)
    return float((distances <= inner).any(1).mean())


def classified(a: np.ndarray, b: np.ndarray, folds: int = 5) -> float:
    """Accuracy of a two-layer network that tells two sets of vectors apart, cross-validated."""
    rows = np.concatenate([a, b])
    inputs = torch.from_numpy((rows - rows.mean(0)) / rows.std(0)).float()
    labels = torch.cat([torch.ones(len(a)), torch.zeros(len(b))])
    place = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)) % folds
    right = 0
    for fold in range(folds):
        torch.manual_seed(fold)
        net = torch.nn.Sequential(torch.nn.Linear(rows.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-1)
        trained, tested = place != fold, place == fold
        for _ in range(150):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(net(inputs[trained])[:, 0], labels[trained])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right += int(((net(inputs[tested])[:, 0] > 0).float() == labels[tested]).sum())
    return right / len(rows)


def levels(sampler: IdentitySampler, people: np.ndarray) -> bool:
    """Check that the mean cosine to the original decreases from level to level."""
    means = [
        float(np.mean([sampler.level(p, level, i).cosines[0] for i, p in enumerate(people)]))
        for level in range(1, LEVELS + 1)
    ]
    print(f"mean cosine to the original, levels 1 to 10 ({len(people)} people): " + " ".join(f"{m:.2f}" for m in means))
    return _bar("largest step between levels (below 0: strictly away)", float(np.diff(means).max()), -1e-9)


def linking(sampler: IdentitySampler, portraits: list[Portrait], photos: Path, views: int) -> bool:
    """Check pseudonyms: augmented views of 100 synthetic people under two keys, and two photos each of three real
    people."""
    people, vectors = different_people(sampler, portraits, 100)
    jobs = [(p.path, view) for p in people for view in range(views)]
    embedded = list(parallel(embed_view, jobs, os.cpu_count() or 1, silent, "views"))
    found = [(i // views, v) for i, v in enumerate(embedded) if v is not None]
    ledgers = [Ledger(Key(bytes([i]) * 32), 5000, sampler.mean, sampler.std) for i in range(2)]
    numbers = [[ledger.number(Identity(v, "dlib")) for v in vectors] for ledger in ledgers]
    stable = sum(ledgers[0].number(Identity(v, "dlib")) == numbers[0][person] for person, v in found)
    duplicates = len(ledgers[0].entries) - len(people)
    # The correlation of one pair of keys reaches .2 by chance with 100 people, so several pairs are averaged.
    linked = float(np.mean([correlation(sampler, vectors) for _ in range(KEY_PAIRS)]))
    pairs = [ledgers[0].number(_photo(photos / f"person_{person}_{i}.jpg")) for person in "abc" for i in (1, 2)]
    kept = [pairs[i] == pairs[i + 1] for i in (0, 2, 4)]
    print(
        f"{len(people)} people, {len(embedded)} views, a face found in {len(found)}; {stable} keep their pseudonym,"
        f" {duplicates} were enrolled again as a new person"
    )
    print(f"real people: {sum(kept)} of 3 pairs share a pseudonym, {len(set(pairs))} different pseudonyms")
    return all(
        [
            _bar("views that lose their pseudonym", 1 - stable / len(found), 0.0),
            _bar("people who share a pseudonym", len(people) - len(set(numbers[0])), 0.0),
            _bar("real pairs with two pseudonyms, or shared ones", 3 - sum(kept) + abs(3 - len(set(pairs))), 0.0),
            _bar(
                f"|correlation| of numbers under two keys, mean of {KEY_PAIRS} pairs (3 errors)",
                abs(linked),
                3 / np.sqrt(len(people) * KEY_PAIRS),
            ),
            attack(sampler, ledgers[0], vectors),
        ]
    )


def correlation(sampler: IdentitySampler, vectors: list[np.ndarray]) -> float:
    """Compute the correlation of the numbers that the same people get under two new keys."""
    ledgers = [Ledger(Key.new(), 5000, sampler.mean, sampler.std) for _ in range(2)]
    return float(np.corrcoef([[ledger.number(Identity(v, "dlib")) for v in vectors] for ledger in ledgers])[0, 1])


def different_people(
    sampler: IdentitySampler, portraits: list[Portrait], count: int
) -> tuple[list[Portrait], list[np.ndarray]]:
    """Select the first portraits with pairwise cosines below .5, because the data contain duplicates."""
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


def embed_view(path: Path, seed: int) -> np.ndarray | None:
    """Augment a portrait, then detect and embed its face again; None where no face is found.

    The augmentation mirrors (half of the views), rotates, scales, changes brightness, contrast and color, blurs, adds
    noise and compresses as JPEG.
    """
    rng = np.random.default_rng([seed, *path.name.encode()])
    with Image.open(path) as portrait:
        view = portrait.convert("RGB")
    if rng.random() < 0.5:
        view = ImageOps.mirror(view)
    side = int(rng.integers(128, 513))
    view = (
        ImageOps.expand(view, 40, (128, 128, 128))
        .rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
        .resize((side, side))
    )
    for enhancer, limit in ((ImageEnhance.Brightness, 0.3), (ImageEnhance.Contrast, 0.3), (ImageEnhance.Color, 0.5)):
        view = enhancer(view).enhance(1 + rng.uniform(-limit, limit))
    view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0, side / 400)))
    pixels = np.asarray(view, dtype=np.float32) + rng.normal(0, rng.uniform(0, 8), (side, side, 3))
    jpeg = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=int(rng.integers(40, 96)))
    image = from_pillow(Image.open(jpeg))
    faces = [f for f in detect_faces(image, rotated=False) if f.landmarks]
    return default_recognizer().embed(image, faces[0].points) if faces else None


def attack(sampler: IdentitySampler, ledger: Ledger, vectors: list[np.ndarray]) -> bool:
    """Simulate an attacker with the ledger and photos of all people, but without the key.

    The attacker hashes the photos under keys of his own and assigns each photo to the entry with the most matching
    hashes.
    """
    guesses = correct = 0
    for trial in range(10):
        key = Key(bytes([100 + trial]) * 32)
        attacker = Ledger(key, ledger.capacity, sampler.mean, sampler.std)
        attacker.entries = ledger.entries
        for person, vector in enumerate(vectors[:20]):
            counts = list(attacker.count_matches(Identity(vector, "dlib")))
            # Ties are broken at random.
            best = np.flatnonzero(np.array(counts) == max(counts))
            correct += (person in best) / len(best)
            guesses += 1
    chance = 1 / len(ledger.entries)
    margin = 3 * np.sqrt(chance / guesses)
    return _bar(f"attacker's hits beyond chance ({chance:.3f})", correct / guesses - chance, margin)


def survival(photos: Path) -> bool:
    """Measure how closely the appearance method renders a given identity.

    The measure is the cosine between the given identity and the embedding of the result, in the standardized space.
    """
    sampler = builtin_sampler("dlib")
    method = AppearanceMethod()
    settings = Settings(policy=Policy.always("pass"))
    before, after = [], []
    for path in sorted(photos.glob("portrait_*.jpg")):
        pixels = load_image(path).pixels
        original = embed_identities(pixels)
        for seed in range(2):
            target = Identity(sampler.away_from(original.vector, seed).vectors, "dlib")
            rendered = embed_identities(anonymize_batch(pixels, settings, method=method, identity=target).pixels)
            before.append(float(sampler.cosine(original.vector, target.vector)[0, 0]))
            after.append(float(sampler.cosine(rendered.vector, target.vector)[0, 0]))
    print(
        f"cosine to the given identity, {len(after)} images: {np.mean(before):.2f} before, {np.mean(after):.2f} after"
        f" (minimum {np.min(after):.2f})"
    )
    return _bar("images that come no closer", float(np.mean(np.array(after) <= np.array(before))), 0.0)


def thresholds(vectors: np.ndarray, photos: Path) -> bool:
    """Check dlib's threshold: false matches between different synthetic people, and genuine and impostor pairs of real
    people."""
    limit = threshold_of("dlib").distance
    pairs = _pairs(vectors)
    people = [[_photo(photos / f"person_{person}_{i}.jpg").vector for i in (1, 2)] for person in "abc"]
    same = [float(np.linalg.norm(a - b)) for a, b in people]
    other = [float(np.linalg.norm(a - b)) for i, p in enumerate(people) for q in people[i + 1 :] for a in p for b in q]
    print(
        f"dlib, unit vectors: same person below {limit:.3f}; genuine pairs at most {max(same):.3f}, impostor pairs at"
        f" least {min(other):.3f}; {np.mean(pairs < limit):.2%} of {len(pairs)} pairs of different synthetic people are"
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
    """Compute the L2 distance of each vector of ``a`` to the nearest of ``b``."""
    return np.sqrt(np.maximum(0, 2 - 2 * a @ b.T)).min(1)


def _pairs(a: np.ndarray) -> np.ndarray:
    """Compute the L2 distances of all pairs of vectors."""
    return np.sqrt(np.maximum(0, 2 - 2 * a @ a.T))[np.triu_indices(len(a), 1)]


def _bar(name: str, value: float, limit: float) -> bool:
    """Print a measured value with its limit and return whether it is met."""
    met = value <= limit
    print(f"{'met ' if met else 'MISS'}  {name:62} {value:8.3f}  (<= {limit:g})")
    return met


if __name__ == "__main__":
    sys.exit(main())
