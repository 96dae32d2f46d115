"""The search for identities that no guide takes for the original."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.methods.appearance import search as module
from faceveil.pipelines.methods.appearance.canonical import REGIONS
from faceveil.pipelines.methods.appearance.forecast import GOALS
from faceveil.pipelines.methods.appearance.jacobian import GUIDES
from faceveil.pipelines.methods.appearance.latent import MAX_CODE, appearance_of
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.appearance.network import TRAITS
from faceveil.pipelines.methods.appearance.people import People
from faceveil.pipelines.methods.appearance.render import Subject, render
from faceveil.pipelines.methods.appearance.search import MORE_TRIALS, SearchResult, search, search_target
from faceveil.pipelines.methods.appearance.strangers import strangers
from faceveil.pipelines.training.labels import LABELS


@pytest.fixture(scope="module")
def result(method, subject) -> SearchResult:
    return search(method.model, [subject], 1, method.guides)


def embeddings(method: AppearanceMethod, subject: Subject, found: SearchResult) -> list[np.ndarray]:
    patch, _, points = render(method.model, subject, appearance_of(method.model, found.latent, subject), 1.0)
    return [guide.embed(patch, points) for guide in method.guides]


def test_every_guide_finds_a_stranger(method, subject, result):
    for guide, vector, original in zip(
        method.guides, embeddings(method, subject, result), subject.embeddings, strict=True
    ):
        assert guide.distance(vector, original) > 0.8 * GOALS[guide.name]
        assert guide.distance(vector, original) > guide.threshold


def test_sex_and_age_stay(method, subject, result):
    labels = method.model.attributes.labels
    before, after = (
        np.append(vector, 1.0) @ labels for vector in (subject.embeddings[0], embeddings(method, subject, result)[0])
    )
    assert np.sign(before[LABELS.index("male")]) == np.sign(after[LABELS.index("male")])
    # Standardized by 25 years.
    assert abs(before - after)[LABELS.index("age")] < 0.8


def test_the_seed_chooses_the_stranger(method, subject, result):
    again = search(method.model, [subject], 1, method.guides)
    other = search(method.model, [subject], 2, method.guides)
    for name in REGIONS:
        assert np.array_equal(again.latent.codes[name], result.latent.codes[name])
        assert not np.array_equal(other.latent.codes[name], result.latent.codes[name])
        assert np.abs(result.latent.codes[name]).max() <= MAX_CODE


def test_one_trial_renders_nothing_and_still_changes_the_person(method, subject, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(module, "render", None)
        found = search(method.model, [subject], 1, method.guides, trials=1)
    for guide, vector, original in zip(
        method.guides, embeddings(method, subject, found), subject.embeddings, strict=True
    ):
        assert guide.distance(vector, original) > guide.threshold


@pytest.fixture
def rendered(monkeypatch) -> list[bytes]:
    """Grows by the codes of each rendering."""
    codes, original = list[bytes](), module.render

    def recorded(model, subject, appearance, strength):
        codes.append(np.concatenate([*appearance.textures.values(), *appearance.shapes.values()]).tobytes())
        return original(model, subject, appearance, strength)

    monkeypatch.setattr(module, "render", recorded)
    return codes


@pytest.mark.parametrize(("goal", "more"), [(9.0, MORE_TRIALS), (0.1, 0)], ids=["hard", "easy"])
def test_trials_limit_the_renderings(method, subject, monkeypatch, rendered, goal, more):
    """A hard face gets some more."""
    for guide in GOALS:
        monkeypatch.setitem(GOALS, guide, goal)
    for trials, starts in ((2, 2), (3, 2), (16, 16)):
        rendered.clear()
        search(method.model, [subject], 1, method.guides, trials=trials)
        assert len(rendered) == starts + more


def test_no_codes_are_rendered_twice(method, subject, monkeypatch, rendered):
    for guide in GOALS:
        monkeypatch.setitem(GOALS, guide, 9.0)  # no face is good enough
    search(method.model, [subject], 1, method.guides, trials=4)
    assert len(set(rendered)) == len(rendered) == 4 + MORE_TRIALS


def test_trials_limit_the_renderings_for_a_given_identity(method, subject, rendered):
    identity = Identity(np.eye(128)[0], "dlib")
    for trials, renderings in ((1, 0), (2, 2), (4, 3), (16, 15)):
        rendered.clear()
        search_target(method.model, [subject], identity, method.guides, trials=trials)
        assert len(rendered) == renderings


def test_a_stranger_is_drawn_among_people_of_similar_traits(method, subject):
    traits = method.model.people.traits
    drawn = strangers(method.model, subject.attributes[TRAITS], 100, 0)
    near, far = traits[drawn], np.delete(traits, drawn, axis=0)
    male = LABELS.index("male")
    own = subject.attributes[male]
    assert len(set(drawn)) == 100
    assert np.abs(near[:, male] - own).mean() < 0.5 * np.abs(far[:, male] - own).mean()


def test_the_forecast_is_better_than_no_forecast(method, subject):
    searching = module._Search(method.model, [subject], method.guides, 0, module.DRAWN, np.zeros(128))
    forecaster = searching._forecaster
    errors: dict[str, list[float]] = {guide: [] for guide in GUIDES}
    for codes in searching.strangers[:6]:
        (rendered,) = searching.rendered(codes).embeddings
        (forecast,) = forecaster.embeddings(forecaster.parts(codes))
        for guide, expected, vector, original in zip(GUIDES, forecast, rendered, subject.embeddings, strict=True):
            errors[guide].append(np.linalg.norm(expected - vector) / np.linalg.norm(original - vector))
    assert all(np.mean(e) < 0.9 for e in errors.values())


def test_people_survive_the_file():
    generator = np.random.default_rng(0)
    people = People({n: generator.normal(size=(5, 8)) for n in REGIONS}, generator.normal(size=(5, 12)))
    read = People.from_tensors(people.tensors())
    assert len(read) == 5
    assert all(np.abs(read.codes[n] - people.codes[n]).max() < 0.02 for n in REGIONS)
    assert np.abs(read.traits - people.traits).max() < 0.01


def test_two_photos_of_a_person_share_the_codes(method, subject):
    darker = replace(subject, patch=subject.patch * 0.9)
    found = search(method.model, [subject, darker], 3, method.guides)
    assert found.margin > 0.7
    assert torch.isfinite(render(method.model, darker, appearance_of(method.model, found.latent, darker), 1.0)[0]).all()
