"""Measures of naturalness: they see what they are named after, and the search stays within their limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.methods.appearance.canonical import REGIONS
from faceveil.pipelines.methods.appearance.natural import Naturalness, Parts
from faceveil.pipelines.methods.appearance.render import Subject

CONTRAST, FROWN, MUSTACHE, CHIN, WIDTH, NOSE_WIDTH, MOUTH = range(7)


@pytest.fixture(scope="module")
def natural(method) -> Naturalness:
    return Naturalness(method.model)


def parts(subject: Subject) -> Parts:
    return Parts([subject.codes[name].astype(float) for name in REGIONS], [np.zeros((68, 2)) for _ in REGIONS])


def test_the_original_is_within_its_limits(natural, subject):
    measures = natural.measure(parts(subject))
    assert natural.excess(measures, natural.limits(subject)) == pytest.approx(0, abs=1e-3)


def test_measures_equal_those_of_the_decoded_face(method, natural, subject):
    faded = parts(subject)
    faded.textures[REGIONS.index("eyes")][:] = 0
    detail = method.model.decode({n: t.astype(np.float32) for n, t in zip(REGIONS, faded.textures, strict=True)})
    brows, canonical = method.model.canonical.brows, method.model.canonical
    assert natural.measure(faded)[CONTRAST] == pytest.approx(float(natural.tones(detail)[CONTRAST]), abs=1e-4)
    # Darker brows have more contrast, which is negative; a dark crease between the brows is a frown.
    assert natural.tones(detail - 0.3 * brows)[CONTRAST] < natural.tones(detail)[CONTRAST] - 0.2
    x, y = canonical.xy
    crease = ((x.abs() < 0.08) & (y > -0.3) & (y < -0.1)).float()
    assert natural.tones(detail - 0.3 * crease)[FROWN] < natural.tones(detail)[FROWN] - 0.1
    for measure, top, bottom in ((MUSTACHE, 0.74, 0.88), (CHIN, 1.45, 1.7)):
        shaved = ((x.abs() < 0.3) & (y > top) & (y < bottom)).float()
        darker = natural.tones(detail - 0.3 * shaved) < natural.tones(detail) - 0.1
        assert darker.tolist() == [measure == i for i in range(WIDTH)]
    assert np.allclose(natural.tones(detail + 0.5), natural.tones(detail), atol=1e-4)


@pytest.mark.parametrize("name", REGIONS)
def test_every_region_counts_as_decoding_does(method, natural, subject, name):
    changed = parts(subject)
    before = natural.measure(changed)
    changed.textures[REGIONS.index(name)] += np.random.default_rng(1).normal(size=len(subject.codes[name]))
    detail = method.model.decode({n: t.astype(np.float32) for n, t in zip(REGIONS, changed.textures, strict=True)})
    measured = natural.measure(changed)[:WIDTH]
    assert np.allclose(measured, natural.tones(detail), atol=2e-4)
    changes = np.abs(measured - before[:WIDTH])
    # Brows and forehead lie in these two regions.
    assert (changes[[CONTRAST, FROWN]].max() > 1e-3) == (name in ("eyes", "base"))
    assert (changes[[MUSTACHE, CHIN]].max() > 1e-3) == (name != "eyes")


def test_it_works_in_inference_mode(subject):
    """ComfyUI runs nodes in it, and there is no autograd."""
    from faceveil.pipelines.methods.appearance.network import load_model

    with torch.inference_mode():
        natural = Naturalness(load_model())
    assert np.isfinite(natural.measure(parts(subject))).all()


def test_a_broader_jaw_is_an_excess(natural, subject):
    broad = parts(subject)
    jaw = broad.moves[REGIONS.index("base")]
    jaw[2:7, 0], jaw[10:15, 0] = -0.1, 0.1
    measures = natural.measure(broad)
    assert measures[WIDTH] == pytest.approx(0.1)
    assert natural.excess(measures, natural.limits(subject)) == pytest.approx((0.1 - 0.05) / 0.04, abs=1e-2)


def test_a_broader_nose_and_a_mouth_far_below_it_are_an_excess(natural, subject):
    changed = parts(subject)
    changed.moves[REGIONS.index("nose")][[31, 32, 34, 35], 0] += [-0.1, -0.1, 0.1, 0.1]
    measures = natural.measure(changed)
    assert measures[NOSE_WIDTH] == pytest.approx(0.1)
    broad = natural.excess(measures, natural.limits(subject))
    assert broad > 2
    changed.moves[REGIONS.index("mouth")][48:, 1] += 0.4
    measures = natural.measure(changed)
    assert measures[MOUTH] == pytest.approx(0.4)
    assert natural.excess(measures, natural.limits(subject)) > broad + 1
