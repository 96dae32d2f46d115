"""Pseudonyms: seconds of a lookup among 10,000 people, and how stable they are without a ledger.

    python benchmarks/pseudonyms.py [PEOPLE]

PEOPLE is a folder with several photos of each person, named PERSON_*.webp (default ../shared/data/people beside the
repository). Profiles are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.identity.ledger import Key, Ledger
from faceveil.pipelines.identity.pseudonym import Regions
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.people import embed_identities

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "people"
LEDGER_SIZE, LIMIT = 10_000, 0.05
KEYS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path, nargs="?", default=DEFAULT)
    options = parser.parse_args()
    fast = lookup()
    stability(options.people)
    return 0 if fast else 1


def lookup() -> bool:
    """Time a lookup in a ledger of 10,000 people who are all different from the wanted one, and its start."""
    sampler = builtin_sampler("dlib")
    ledger = Ledger(Key.new(), 2 * LEDGER_SIZE, sampler.mean, sampler.std)
    rng = np.random.default_rng(0)
    strangers = rng.normal(size=(LEDGER_SIZE, len(sampler.mean))) * sampler.std + sampler.mean
    rows = [ledger._codes(vector) for vector in strangers]
    # Enrolling one by one would sort out the free numbers each time.
    ledger._known = np.stack(rows)
    wanted = Identity(rng.normal(size=len(sampler.mean)) * sampler.std + sampler.mean, "dlib")
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        ledger.find(wanted)
        seconds.append(time.perf_counter() - start)
    print(f"lookup among {LEDGER_SIZE} people: {1000 * np.median(seconds):.1f} ms ({1000 * LIMIT:.0f} ms)")
    return bool(np.median(seconds) <= LIMIT)


def stability(folder: Path) -> None:
    """Without a ledger: photos that keep the pseudonym of the person's first photo, and people who share one."""
    sampler, people = builtin_sampler("dlib"), _embedded(folder)
    photos = sum(map(len, people))
    print(f"without a ledger: {len(people)} people, {photos} photos, mean of {KEYS} keys")
    for count in (4, 16, 64, 256):
        kept, shared = [], []
        for i in range(KEYS):
            regions = Regions(Key(bytes([i]) * 32), sampler, count)
            numbers = [[regions.number(Identity(v, "dlib")) for v in person] for person in people]
            kept.append(np.mean([n == person[0] for person in numbers for n in person[1:]]))
            shared.append(1 - len({person[0] for person in numbers}) / len(people))
        same, double = 100 * np.mean(kept), 100 * np.mean(shared)
        print(f"  {count:4} regions: {same:.0f} % of photos keep it, {double:.0f} % of people share one")


def _embedded(folder: Path) -> list[list[np.ndarray]]:
    people: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob("*.webp")):
        if "profile" in path.name:
            continue
        try:
            people.setdefault(path.name.split("_")[0], []).append(embed_identities(load_image(path).pixels).vectors[0])
        except InputError as error:
            print(f"{path.name}: {error}")
    return list(people.values())


if __name__ == "__main__":
    sys.exit(main())
