"""New people from the parts of strangers, and the measures of how natural they look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.methods.appearance import search as module
from faceveil.pipelines.methods.appearance.canonical import REGIONS
from faceveil.pipelines.methods.appearance.forecast import GOALS, Forecaster
from faceveil.pipelines.methods.appearance.jacobian import GUIDES
from faceveil.pipelines.methods.appearance.mixing import EXCESS_WEIGHT, Contributions, Mixer

PEOPLE = 12


@pytest.fixture(scope="module")
def searching(method, subject) -> module._Search:
    return module._Search(method.model, [subject], method.guides, 0, module.DRAWN, np.zeros(128))


@pytest.fixture(scope="module")
def forecaster(searching) -> Forecaster:
    return searching._forecaster


@pytest.fixture(scope="module")
def mixer(method, searching, forecaster) -> Mixer:
    (subject,), (limits,) = forecaster.subjects, forecaster.limits
    parts = [forecaster.parts(codes)[0] for codes in searching.strangers[:PEOPLE]]
    photo = Contributions.of(method.model, forecaster.natural, subject, limits, parts)
    return Mixer([photo, photo], forecaster.labels, forecaster.natural)


def test_a_combination_is_forecast_like_the_person_it_makes(searching, forecaster, mixer):
    rows = torch.randint(PEOPLE, (5, len(REGIONS)), generator=torch.Generator().manual_seed(0)).numpy()
    people = [forecaster.split(codes) for codes in searching.strangers[:PEOPLE]]
    for combination, merit in zip(rows, mixer.merits(rows), strict=True):
        codes = np.concatenate([people[row][region] for region, row in enumerate(combination)])
        parts = forecaster.parts(codes)
        embeddings = forecaster.embeddings(parts)
        wanted = forecaster.margin(embeddings) - EXCESS_WEIGHT * forecaster.excess(parts, embeddings)
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


def test_each_part_of_a_new_person_is_a_strangers(searching, forecaster):
    regions = list(zip(*(forecaster.split(codes) for codes in searching.strangers), strict=True))
    for codes in searching.mixtures(3):
        for part, strangers in zip(forecaster.split(codes), regions, strict=True):
            assert any(np.array_equal(part, one) for one in strangers)


def test_measures_of_naturalness_respond_as_forecast(searching, forecaster):
    codes = searching.strangers[0]
    (derivatives,) = forecaster.derivatives(codes)
    steps = np.random.default_rng(0).normal(size=(20, len(codes))) * 0.02
    after, before = (
        np.stack([forecaster.natural.measure(forecaster.parts(codes + sign * step)[0]) for step in steps])
        for sign in (1, -1)
    )
    change = after - before
    error = np.linalg.norm(change - 2 * steps @ derivatives.natural.T, axis=0) / np.linalg.norm(change, axis=0)
    assert error.max() < 0.3


@pytest.mark.parametrize("guide", GUIDES)
def test_the_guide_that_finds_a_face_most_alike_counts(mixer, monkeypatch, guide):
    whole = np.repeat(np.arange(PEOPLE)[:, None], len(REGIONS), 1)
    before = mixer.merits(whole)
    monkeypatch.setitem(GOALS, guide, 10 * GOALS[guide])
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
