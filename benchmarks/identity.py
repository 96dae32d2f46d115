"""Identities: are drawn people like real ones, do levels move away, are pseudonyms stable, does the default show what it is given?

    python benchmarks/identity.py [FACES] [--photos PHOTOS] [--levels N]

FACES is a folder of portraits (default ../shared/data/synthetic_faces beside the repository); every fifth one was held out when the
shipped sampler was trained and is what drawn people are compared with.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# A second thread of numpy's linear algebra would fight with the workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import LEVELS, IdentitySampler, builtin_sampler
from faceveil.pipelines.identity.pseudonym import Key, Ledger
from faceveil.pipelines.jobs.portraits import folder_vectors

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EDGES = np.arange(0.0, 0.85, 0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="?", default=DATA / "synthetic_faces")
    parser.add_argument("--levels", type=int, default=200, help="identities that the ten levels are averaged over")
    options = parser.parse_args()
    vectors = folder_vectors(options.faces, "dlib")
    learned, held = vectors.learned, vectors.held
    sampler = builtin_sampler("dlib")
    passed = [likeness(sampler, learned, held), levels(sampler, held[: options.levels]), linking(sampler, held)]
    return 0 if all(passed) else 1


def likeness(sampler: IdentitySampler, learned: np.ndarray, held: np.ndarray) -> bool:
    """Distances among drawn people against those among real ones."""
    drawn = sampler.sample(len(held), 1).vectors
    others = learned[: len(held)]
    real_near, drawn_near = _nearest(others, held), _nearest(drawn, held)
    real_pairs, drawn_pairs = _pairs(held), _pairs(drawn)
    print("distance           " + " ".join(f"{e:5.2f}" for e in EDGES[:-1]))
    for name, values in (("nearest, real", real_near), ("nearest, drawn", drawn_near), ("pairs, real", real_pairs), ("pairs, drawn", drawn_pairs)):
        share = np.histogram(values, EDGES)[0] / len(values)
        print(f"{name:18} " + " ".join(f"{s:5.2f}" for s in share))
    closest, usual = _nearest(drawn, learned).min(), np.percentile(_nearest(held, learned), 1)
    return all([
        _bar("nearest held-out, drawn / real", abs(drawn_near.mean() / real_near.mean() - 1), 0.10),
        _bar("diversity of pairs, drawn / real", abs(drawn_pairs.mean() / real_pairs.mean() - 1), 0.10),
        _bar(f"closest to a training face {closest:.3f}, real ones at 1 % {usual:.3f}", usual - closest, 0.0),
    ])


def levels(sampler: IdentitySampler, people: np.ndarray) -> bool:
    means = [float(np.mean([sampler.level(p, level, i).cosines[0] for i, p in enumerate(people)])) for level in range(1, LEVELS + 1)]
    print(f"mean cosine to the original, levels 1 to 10 ({len(people)} people): " + " ".join(f"{m:.2f}" for m in means))
    return _bar("largest step between levels (below 0: strictly away)", float(np.diff(means).max()), -1e-9)


def linking(sampler: IdentitySampler, held: np.ndarray) -> bool:
    """A hundred people, fifty noisy views each (cosine to the first about .9), under two keys."""
    people: list[np.ndarray] = []
    for person in held:
        if all(sampler.cosine(person, other)[0, 0] < 0.5 for other in people):
            people.append(person)
        if len(people) == 100:
            break
    numbers = []
    rng = np.random.default_rng(0)
    stable = total = 0
    for turn in range(2):
        ledger = Ledger(Key(bytes([turn]) * 32), 5000, sampler.mean, sampler.std)
        own = [ledger.number(Identity(p, "dlib")) for p in people]
        numbers.append(own)
        for person, number in zip(people, own, strict=True):
            standard = sampler.standardise(person)
            for _ in range(50 if turn == 0 else 1):
                noise = rng.normal(size=len(standard))
                noise *= 0.48 * np.linalg.norm(standard) / np.linalg.norm(noise)
                view = Identity((standard + noise) * sampler.std + sampler.mean, "dlib")
                stable += ledger.number(view) == number
                total += 1
    linked = float(np.corrcoef(numbers)[0, 1])
    print(f"{len(people)} people, {stable} of {total} views keep their pseudonym, {len(set(numbers[0]))} different ones")
    return all([
        _bar("views that lose their pseudonym", 1 - stable / total, 0.0), _bar("people who share one", len(people) - len(set(numbers[0])), 0.0),
        _bar("|correlation| of numbers under two keys (chance: 0.2)", abs(linked), 0.2),
    ])


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
