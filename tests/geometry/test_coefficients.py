"""Coefficients: layouts, arithmetic, files, sliders."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.geometry.coefficients import (
    DEEP3D,
    DIFFDEID,
    FIELDS,
    Coefficients,
    Standardizer,
    load_coefficients,
    neutral,
    save_coefficients,
)
from faceveil.pipelines.geometry.sliders import EXPRESSION, SHAPE, apply_sliders
from safetensors import safe_open
from safetensors.torch import save_file


def random_bfm(count: int = 3) -> Coefficients:
    generator = torch.Generator().manual_seed(0)
    return Coefficients(
        "bfm",
        **{
            k: torch.randn(v.shape, generator=generator)
            for k, v in neutral("bfm", (80, 64, 80), count).fields().items()
        },
    )


def test_layouts_round_trip() -> None:
    c = random_bfm()
    vector = c.to_vector(DIFFDEID)
    assert vector.shape == (3, 261)
    again = Coefficients.from_vector(vector, DIFFDEID, "bfm")
    assert all(torch.equal(v, again.fields()[k]) for k, v in c.fields().items())
    vector = c.to_vector(DEEP3D)
    assert vector.shape == (3, 257) and torch.equal(
        Coefficients.from_vector(vector, DEEP3D, "bfm").to_vector(DEEP3D), vector
    )
    # The published slices: identity 0, expression 80, texture 144, angles 224, gamma 227, translation 254.
    published = (
        ("identity", 0, 80),
        ("expression", 80, 144),
        ("texture", 144, 224),
        ("angles", 224, 227),
        ("lighting", 227, 254),
        ("translation", 254, 257),
    )
    for name, start, stop in published:
        assert torch.equal(vector[:, start:stop], c.fields()[name])


def test_fields_of_small_models_are_padded_and_large_models_are_rejected() -> None:
    small = neutral("appearance-shape", (40, 7, 48))
    assert small.to_vector(DIFFDEID).shape == (1, 261)
    with pytest.raises(InputError, match="identity of big has 90 numbers, but this layout holds 80"):
        neutral("big", (90, 1, 1)).to_vector(DEEP3D)
    with pytest.raises(InputError, match="holds 257 numbers per face, got the shape"):
        Coefficients.from_vector(torch.zeros(1, 261), DEEP3D, "bfm")


def test_replace_and_blend() -> None:
    a, b = random_bfm(), random_bfm(1)
    swapped = a.replaced(b, ("expression", "lighting"))
    assert torch.equal(swapped.identity, a.identity) and torch.equal(swapped.expression, b.expression.expand(3, -1))
    half = a.blended(b, 0.5, ("identity",))
    assert torch.allclose(half.identity, (a.identity + b.identity) / 2) and torch.equal(half.texture, a.texture)
    with pytest.raises(InputError, match="different models cannot be mixed"):
        a.replaced(neutral("ict", (80, 64, 80)), ("identity",))
    with pytest.raises(InputError, match="nose is not one of"):
        a.replaced(b, ("nose",))
    with pytest.raises(InputError, match="2 rows of coefficients do not fit 3"):
        a.replaced(a.rows([0, 1]), ("identity",))


def test_noise_follows_ideudemon() -> None:
    c = neutral("bfm", (5000, 64, 80), 2)
    noisy = c.perturbed(0.25, 3)
    assert noisy.identity.std() == pytest.approx(0.25, rel=0.05) and torch.equal(noisy.identity[0], noisy.identity[1])
    assert torch.equal(noisy.identity, c.perturbed(0.25, 3).identity) and not torch.equal(
        noisy.identity, c.perturbed(0.25, 4).identity
    )
    assert torch.equal(noisy.expression, c.expression)
    assert c.perturbed(2.0, 3, limit=1.0).identity.abs().max() == 1


def test_standardize() -> None:
    c = random_bfm(50)
    standardizer = Standardizer.of(c)
    values = standardizer.standardize(c)
    assert values.mean(0).abs().max() < 1e-5 and (values.std(0) - 1).abs().max() < 1e-4
    again = standardizer.restore(values, "bfm")
    assert all(torch.allclose(v, again.fields()[k], atol=1e-5) for k, v in c.fields().items())


def test_files(tmp_path) -> None:
    c, transforms = random_bfm(), torch.rand(3, 2, 3)
    save_coefficients(tmp_path / "anna.safetensors", c, transforms, datetime.date(2026, 1, 2))
    again, restored_transforms = load_coefficients(tmp_path / "anna.safetensors", "bfm")
    assert torch.equal(restored_transforms, transforms) and all(
        torch.equal(v, again.fields()[k]) for k, v in c.fields().items()
    )
    with safe_open(str(tmp_path / "anna.safetensors"), "pt") as file:
        assert file.metadata() == {"format": "faceveil.coefficients/1", "model": "bfm", "date": "2026-01-02"}
    tensors = {**c.fields(), "transforms": transforms}
    meta = {"format": "faceveil.coefficients/1", "model": "bfm"}
    save_file(tensors | {"identity": c.identity * torch.nan}, str(tmp_path / "nan"), meta)
    save_file(tensors | {"transforms": transforms[:1]}, str(tmp_path / "places"), meta)
    save_file({k: v for k, v in tensors.items() if k != "gaze"}, str(tmp_path / "lacking"), meta)
    save_file(tensors, str(tmp_path / "foreign"), {"format": "x"})
    torch.save(tensors, tmp_path / "pickle")
    for name, message in (
        ("nan", "not finite"),
        ("places", "a valid transform for each face"),
        ("lacking", "lacks 'gaze'"),
        ("foreign", "not a coefficients file of format"),
        ("pickle", "not a complete safetensors"),
        ("gone", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            load_coefficients(tmp_path / name)
    with pytest.raises(InputError, match="belongs to the model bfm, but ict is needed"):
        load_coefficients(tmp_path / "anna.safetensors", "ict")


@pytest.mark.parametrize("name", FIELDS)
def test_wrong_shapes_are_rejected(name) -> None:
    with pytest.raises(InputError, match=f"coefficients {name} have the shape"):
        replace(random_bfm(), **{name: torch.zeros(2, 80, 2)})


@pytest.mark.parametrize("name", [*SHAPE, *EXPRESSION])
def test_a_slider_changes_its_own_measure_most(model, name) -> None:
    """A slider at 1 changes its own measure by more than 0.4 standard deviations.

    The change of each other measure is less than 0.7 times that of its own measure.
    """
    start = neutral(model.name, model.sizes)
    changed = apply_sliders(model, start, {name: 1.0})
    group, modes, before, after = (
        (SHAPE, model.landmark_modes[1], start.identity, changed.identity)
        if name in SHAPE
        else (EXPRESSION, model.landmark_modes[2], start.expression, changed.expression)
    )

    def measure(code: torch.Tensor) -> dict[str, float]:
        found = {}
        for key, terms in group.items():
            effect = sum(weight * modes[:, point, axis] for point, axis, weight in terms)
            found[key] = float(code[0] @ effect / effect.norm().clamp(min=1e-9))
        return found

    changes = {k: measure(after)[k] - measure(before)[k] for k in group}
    assert changes[name] > 0.4
    assert max(abs(v) for k, v in changes.items() if k != name) < 0.7 * changes[name]


def test_no_slider_changes_nothing_and_unknown_sliders_are_rejected(model) -> None:
    start = neutral(model.name, model.sizes)
    assert torch.equal(apply_sliders(model, start, {}).identity, start.identity)
    with pytest.raises(InputError, match="ears is not a slider"):
        apply_sliders(model, start, {"ears": 1.0})
    with pytest.raises(InputError, match="belong to the model bfm"):
        apply_sliders(model, random_bfm(), {"chin": 1.0})
