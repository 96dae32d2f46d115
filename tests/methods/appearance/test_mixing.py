"""New people from the parts of strangers, and the measures of how natural they look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.methods.appearance import mixing
from faceveil.pipelines.methods.appearance import search as module
from faceveil.pipelines.methods.appearance.canonical import REGIONS
from faceveil.pipelines.methods.appearance.jacobian import GUIDES
from faceveil.pipelines.methods.appearance.mixing import EXCESS_WEIGHT, Contributions, Mixer
from faceveil.pipelines.methods.appearance.natural import Naturalness

PEOPLE = 12


@pytest.fixture(scope="module")
def solver(method, subject) -> module._Solver:
    return module._Solver(method.model, [subject], method.guides, 0, module.DRAWN)


@pytest.fixture(scope="module")
def mixer(method, solver) -> Mixer:
    (subject,) = solver._subjects
    parts = [solver._parts(subject, solver.codes_of(person)) for person in solver.people[:PEOPLE]]
    natural = Naturalness(method.model)
    photo = Contributions.of(method.model, natural, subject, natural.limits(subject), parts)
    return Mixer([photo, photo], solver._labels, natural)


def test_a_combination_is_forecast_like_the_person_it_makes(solver, mixer):
    rows = torch.randint(PEOPLE, (5, len(REGIONS)), generator=torch.Generator().manual_seed(0)).numpy()
    people = [np.split(solver.codes_of(person), solver._boundaries) for person in solver.people[:PEOPLE]]
    (subject,) = solver._subjects
    for combination, merit in zip(rows, mixer.merits(rows), strict=True):
        codes = np.concatenate([people[row][region] for region, row in enumerate(combination)])
        parts = solver._parts(subject, codes)
        embeddings = solver._forecast(subject, parts)
        wanted = solver._margin([embeddings]) - EXCESS_WEIGHT * solver._excess([parts], [embeddings])
        assert merit == pytest.approx(wanted, abs=1e-4)


def test_a_chosen_combination_is_better_than_all_people_and_nearly_all_random_ones(mixer):
    best = mixer.merits(mixer.combinations(4, torch.Generator().manual_seed(1))[0][None])[0]
    whole = np.repeat(np.arange(PEOPLE)[:, None], len(REGIONS), 1)
    assert best > mixer.merits(whole).max()
    rows = torch.randint(PEOPLE, (500, len(REGIONS)), generator=torch.Generator().manual_seed(2)).numpy()
    assert best > np.quantile(mixer.merits(rows), 0.98)


def test_the_seed_chooses_the_combinations_and_the_best_comes_first(mixer):
    first, again, other = (mixer.combinations(6, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    merits = mixer.merits(np.stack(first))
    assert np.array_equal(merits, np.sort(merits)[::-1])


def test_each_part_of_a_new_person_is_a_strangers(solver):
    regions = list(zip(*(np.split(solver.codes_of(p), solver._boundaries) for p in solver.people), strict=True))
    for codes in solver.mixtures(3):
        for part, strangers in zip(np.split(codes, solver._boundaries), regions, strict=True):
            assert any(np.array_equal(part, one) for one in strangers)


def test_measures_of_naturalness_respond_as_forecast(method, subject, solver):
    natural = Naturalness(method.model)
    codes = solver.codes_of(solver.people[0])
    *_, response = solver._columns(subject, codes)
    steps = np.random.default_rng(0).normal(size=(20, len(codes))) * 0.02
    after, before = (
        np.stack([natural.measure(solver._parts(subject, codes + sign * step)) for step in steps]) for sign in (1, -1)
    )
    change = after - before
    error = np.linalg.norm(change - 2 * steps @ response.T, axis=0) / np.linalg.norm(change, axis=0)
    assert error.max() < 0.3


@pytest.mark.parametrize("guide", GUIDES)
def test_the_guide_that_finds_a_face_most_alike_counts(mixer, monkeypatch, guide):
    whole = np.repeat(np.arange(PEOPLE)[:, None], len(REGIONS), 1)
    before = mixer.merits(whole)
    monkeypatch.setitem(mixing.GOALS, guide, 10 * mixing.GOALS[guide])
    assert (mixer.merits(whole) < before - 0.1).all()


def test_a_search_can_be_stopped_at_once(method, subject, monkeypatch):
    """Before anything is rendered, there is as much to compute as there are photos."""
    monkeypatch.setattr(module, "render", None)
    seen = []

    def stop(*_args):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.search(method.model, [subject] * 3, 0, method.guides, progress=stop)
    assert len(seen) == 3
