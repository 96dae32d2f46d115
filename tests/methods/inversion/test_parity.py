"""The recorded runs are reproduced, and breaking any rule of the authors' code shows in the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from faceveil.pipelines.methods.inversion import adapter as adapters
from faceveil.pipelines.methods.inversion import denoiser, nullface, reverse
from faceveil.pipelines.methods.inversion.adapter import FaceIdAdapter
from faceveil.pipelines.methods.inversion.pipeline import UNetDenoiser

FULL, KEEP, REVERSE = "nullface_full_mask", "nullface_keep_eyes_mouth", "reverse_personalization"
ROWS = {FULL: 16, KEEP: 19, REVERSE: 63}
BROKEN = 1.5e-3
"""Error of the final latents that a broken rule causes at least; the bar is 2e-4."""


@pytest.mark.parametrize("name", ROWS)
def test_recorded_runs(parity, case_of, name: str) -> None:
    case = case_of(name)
    errors, rows = parity.check(case)
    assert all(value <= parity.BARS.get(key, 0) for key, value in errors.items()), errors
    assert rows == ROWS[name] < case.entry["unet_rows"]


def test_turned_vectors(parity, recorded) -> None:
    import json

    assert parity.vector_error(recorded, json.loads((recorded / "manifest.json").read_text())) < 1e-6


def final_error(parity, case, wrap: Callable[[Any], Any] = lambda denoise: denoise) -> float:
    """Error of the final latents, from the recorded clean latents."""
    unet, _ = parity.open_networks(case)
    denoise = UNetDenoiser(unet, parity.conditions(case, *parity.tokens_of(case)))
    with torch.no_grad():
        final = parity.run(case, wrap(denoise), case.recorded["x0_latent"], denoiser.alphas_bar())[2]
    return float((final - case.recorded["final_latent"]).abs().max())


def eta_squared(patch) -> None:
    def mean(self, x, eps, k, eta):
        a, previous = self.a(k), self.a(k - 1)
        x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
        return previous**0.5 * x0 + (1 - previous - eta**2 * self.variance(k)) ** 0.5 * eps

    patch.setattr(nullface.Schedule, "mean", mean)


def clean_without_noise(patch) -> None:
    original = nullface.Schedule.a
    patch.setattr(nullface.Schedule, "a", lambda self, k: original(self, k) if k else torch.tensor(1.0))


def last_map_kept(patch) -> None:
    original = nullface.generate

    def generate(denoise, bars, found, *args, **options):
        schedule, eta = nullface.Schedule(bars, found.steps), args[1]
        eps = denoise(found.noisy[1], schedule.t(1), ("empty",))[0]
        kept = (found.noisy[0] - schedule.mean(found.noisy[1], eps, 1, eta)) / schedule.sigma(1, eta)
        maps = nullface.noise_map
        patch.setattr(nullface, "noise_map", lambda f, b, k, e=1.0: kept if k == 1 else maps(f, b, k, e))
        return original(denoise, bars, found, *args, **options)

    patch.setattr(nullface, "generate", generate)


def mask_option(**changes: Any) -> Callable[[Any], None]:
    def apply(patch) -> None:
        original = nullface.generate
        patch.setattr(nullface, "generate", lambda *a, **options: original(*a, **(options | changes)))

    return apply


def soft_mask(patch) -> None:
    original = nullface.generate

    def generate(*args, **options):
        soft = torch.nn.functional.avg_pool2d(options["mask"], 3, 1, 1)
        return original(*args, **(options | {"mask": soft}))

    patch.setattr(nullface, "generate", generate)


def conditional_outside(patch) -> None:
    original = nullface.generate

    def generate(denoise, bars, found, guidance, *args, mask, **options):
        def masked(x, t, rows):
            u, c = denoise(x, t, ("empty", "identity"))
            # u + g (c' - u) is c where the mask is 0.
            given = {"empty": u, "identity": torch.where(mask > 0, c, u + (c - u) / guidance)}
            return tuple(given[row] for row in rows)

        return original(masked, bars, found, guidance, *args, **options)

    patch.setattr(nullface, "generate", generate)


NULLFACE = {
    "eta squared": (KEEP, eta_squared),
    "time steps from 0": (FULL, lambda patch: patch.setattr(nullface, "_T_1", 0)),
    "a_0 is 1": (FULL, clean_without_noise),
    "the last noise map is kept": (FULL, last_map_kept),
    "the mask acts from the start": (KEEP, mask_option(mask_delay=0)),
    "outside the mask acts the prediction with the person": (KEEP, conditional_outside),
    "latents are pasted outside the mask": (KEEP, mask_option(hold=True)),
    "a soft mask": (KEEP, soft_mask),
}


@pytest.mark.parametrize("rule", NULLFACE)
def test_each_rule_of_nullface_counts(parity, case_of, monkeypatch, rule: str) -> None:
    name, breaking = NULLFACE[rule]
    breaking(monkeypatch)
    assert final_error(parity, case_of(name)) > BROKEN


def rounded_steps(patch) -> None:
    def timesteps_of(steps, skip):
        return tuple(int(t) for t in np.linspace(999 - 1000 * skip, 1, steps).round())

    patch.setattr(reverse, "timesteps_of", timesteps_of)


def last_map_zero(patch) -> None:
    original = reverse.noise_maps

    def maps(*args):
        found = original(*args)
        return [*found[:-1], torch.zeros_like(found[-1])]

    patch.setattr(reverse, "noise_maps", maps)


def first_order(patch) -> None:
    original = reverse.Solver.step
    patch.setattr(reverse.Solver, "step", lambda self, n, x, eps, first_order=False: original(self, n, x, eps, True))


def memory_reset(patch) -> None:
    original = reverse.noise_maps

    def maps(inversion, solver, guidance):
        found = original(inversion, solver, guidance)
        solver._last = None
        return found

    patch.setattr(reverse, "noise_maps", maps)


def another_neighbor(patch) -> None:
    """The stale prediction of the generation's first step is placed at a time step beside the start."""
    original = reverse.Solver.step

    def step(self, number, x, eps, first_order=False):
        times = self._timesteps
        if number == 0 and self._last is not None:
            self._timesteps = (*times[:-1], times[0] + 20)
        try:
            return original(self, number, x, eps, first_order)
        finally:
            self._timesteps = times

    patch.setattr(reverse.Solver, "step", step)


def last_step_to_clean(patch) -> None:
    original = reverse.Solver.step

    def step(self, number, x, eps, first_order=False):
        mean, sigma = original(self, number, x, eps, first_order)
        # The clean latent is the data prediction itself.
        return (self._last, torch.tensor(1.0)) if number == len(self._timesteps) - 1 else (mean, sigma)

    patch.setattr(reverse.Solver, "step", step)


REVERSED = {
    "the stale prediction lies elsewhere": another_neighbor,
    "the last step leads to the clean latent": last_step_to_clean,
    "time steps are rounded": rounded_steps,
    "the last noise map is zero": last_map_zero,
    "first order": first_order,
    "the solver forgets": memory_reset,
}


@pytest.mark.parametrize("rule", REVERSED)
def test_each_rule_of_reverse_personalization_counts(parity, case_of, monkeypatch, rule: str) -> None:
    REVERSED[rule](monkeypatch)
    assert final_error(parity, case_of(REVERSE)) > BROKEN


ROW_RULES = {
    "the inversion sees no text": (REVERSE, {"empty": "nothing"}),
    "the inversion sees only text": (REVERSE, {"nothing": "empty"}),
    "the inversion sees the person": (REVERSE, {"empty": "identity"}),
    "nullface inverts with the person": (FULL, {"empty": "identity"}),
}


@pytest.mark.parametrize("rule", ROW_RULES)
def test_each_row_counts(parity, case_of, rule: str) -> None:
    name, other = ROW_RULES[rule]

    def swapped(denoise):
        return lambda x, t, rows: denoise(x, t, tuple(other.get(row, row) for row in rows))

    assert final_error(parity, case_of(name), swapped) > BROKEN


@pytest.mark.parametrize("name", [FULL, REVERSE])
def test_the_sign_of_the_guidance_counts(parity, case_of, name: str) -> None:
    case = case_of(name)
    settings = case.entry["settings"] | {"guidance_scale": -case.entry["settings"]["guidance_scale"]}
    changed = replace(case, entry=case.entry | {"settings": settings})
    if name == REVERSE:
        from faceveil.pipelines.core.errors import InputError

        with pytest.raises(InputError, match="0 or negative"):
            final_error(parity, changed)
    else:
        assert final_error(parity, changed) > BROKEN


def without_lora(adapter: FaceIdAdapter) -> FaceIdAdapter:
    return replace(adapter, sites=tuple(replace(s, self_lora={}, cross_lora={}) for s in adapter.sites))


@pytest.mark.parametrize("name", [FULL, REVERSE])
def test_the_adapter_s_lora_counts(parity, case_of, name: str) -> None:
    case = case_of(name)
    assert final_error(parity, replace(case, adapter=without_lora(case.adapter))) > BROKEN


def test_the_norm_of_the_tokens_counts(parity, case_of, monkeypatch) -> None:
    monkeypatch.setattr(adapters.functional, "layer_norm", lambda x, *_: x)
    assert final_error(parity, case_of(FULL)) > BROKEN


def test_nobody_s_tokens_are_not_zero(parity, case_of, monkeypatch) -> None:
    case = case_of(FULL)
    _, person = parity.tokens_of(case)
    monkeypatch.setattr(parity, "tokens_of", lambda _: (torch.zeros_like(person), person))
    assert final_error(parity, case) > BROKEN


@pytest.mark.parametrize("name", [FULL, KEEP, REVERSE])
def test_the_sign_of_the_embedding_counts(parity, case_of, name: str) -> None:
    case = case_of(name)
    opposite = case.recorded | {"face_embedding": -case.recorded["face_embedding"]}
    assert final_error(parity, replace(case, recorded=opposite)) > BROKEN
