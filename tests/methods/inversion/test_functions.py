"""Inversion and generation on a small made-up denoiser: invariants, and bad settings."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.methods.inversion import nullface, reverse
from faceveil.pipelines.methods.inversion.denoiser import alphas_bar, draw
from faceveil.pipelines.methods.inversion.dials import fitting, guidance_of, skip_of
from faceveil.pipelines.methods.inversion.embedding import within_angle

BARS = alphas_bar()
SHIFTS = {"nothing": 0.0, "empty": 0.05, "identity": 0.2, "attributes": -0.1}


class Toy:
    """Depends on the latent, the time and the row, and counts its rows."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, x, t, rows):
        self.rows += len(rows)
        return tuple(torch.tanh(x * (0.5 + t / 2000) + SHIFTS[row]) for row in rows)


@pytest.fixture
def x0() -> torch.Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))


def inverted(x0, steps=20, depth=12, seeds=(3, 4)):
    return nullface.invert(Toy(), BARS, x0, draw(x0, depth, list(seeds)), steps)


def test_a_batch_equals_single_faces(x0) -> None:
    together = nullface.generate(Toy(), BARS, inverted(x0))
    for row, seed in enumerate((3, 4)):
        alone = nullface.generate(Toy(), BARS, inverted(x0[row : row + 1], seeds=(seed,)))
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)
    times = reverse.timesteps_of(20, 0.7)
    whole = reverse.invert(Toy(), BARS, x0, draw(x0, 20, [3, 4]), times)
    one = reverse.invert(Toy(), BARS, x0[1:], draw(x0[1:], 20, [4]), times)
    assert torch.allclose(reverse.generate(Toy(), BARS, whole)[1:], reverse.generate(Toy(), BARS, one), atol=1e-4)


def test_a_continued_inversion_equals_a_fresh_one(x0) -> None:
    short, deep = inverted(x0, depth=8), inverted(x0, depth=12)
    toy = Toy()
    continued = nullface.invert(toy, BARS, x0, draw(x0, 12, [3, 4]), 20, short)
    assert torch.equal(continued.noisy, deep.noisy) and torch.equal(continued.predictions, deep.predictions)
    assert toy.rows == 4
    shallow = nullface.generate(Toy(), BARS, deep, depth=8)
    assert torch.allclose(shallow, nullface.generate(Toy(), BARS, short), atol=1e-5)


def test_without_guidance_the_latents_return(x0) -> None:
    found = inverted(x0)
    # All but the noise of the last step, which the authors leave out.
    mean = nullface.Schedule(BARS, 20).mean(found.noisy[1], Toy()(found.noisy[1], 1, ("empty",))[0], 1, 1.0)
    assert torch.allclose(nullface.generate(Toy(), BARS, found, guidance=0.0), mean, atol=1e-4)
    assert (mean - x0).abs().max() < 0.3
    times = reverse.timesteps_of(20, 0.7)
    whole = reverse.invert(Toy(), BARS, x0, draw(x0, 20, [3, 4]), times)
    assert (reverse.generate(Toy(), BARS, whole, guidance=0.0) - x0).abs().max() < 0.05


def test_rows_are_counted(x0) -> None:
    toy = Toy()
    found = nullface.invert(toy, BARS, x0, draw(x0, nullface.depth_of(100, 0.7), [0, 1]), 100)
    nullface.generate(toy, BARS, found)
    assert toy.rows == 88
    toy = Toy()
    times = reverse.timesteps_of()
    reverse.generate(toy, BARS, reverse.invert(toy, BARS, x0, draw(x0, 100, [0, 1]), times))
    assert toy.rows == 399


@pytest.mark.parametrize("kind", ["nullface", "reverse"])
def test_outside_a_held_mask_the_latents_are_the_original_s(x0, kind: str) -> None:
    mask = torch.zeros(1, 1, 6, 5)
    mask[..., 2:4, 1:3] = 1
    if kind == "nullface":
        result = nullface.generate(Toy(), BARS, inverted(x0), mask=mask, hold=True)
    else:
        times = reverse.timesteps_of(20, 0.7)
        found = reverse.invert(Toy(), BARS, x0, draw(x0, 20, [3, 4]), times)
        result = reverse.generate(Toy(), BARS, found, mask=mask)
    outside = (mask == 0).expand_as(x0)
    assert torch.equal(result[outside], x0[outside])
    assert (result - x0)[~outside].abs().max() > 0.01


def test_attributes_change_the_result_and_not_the_inversion(x0) -> None:
    times = reverse.timesteps_of(20, 0.7)
    whole = reverse.invert(Toy(), BARS, x0, draw(x0, 20, [3, 4]), times)
    plain, prompted = (reverse.generate(Toy(), BARS, whole, attributes=a) for a in (False, True))
    assert (plain - prompted).abs().max() > 0.01
    found = inverted(x0)
    a, b = (nullface.generate(Toy(), BARS, found, attributes=a) for a in (False, True))
    assert (a - b).abs().max() > 0.01


@pytest.mark.parametrize("steps", [14, 15])
def test_with_few_steps_the_last_one_is_first_order(x0, monkeypatch, steps: int) -> None:
    times = reverse.timesteps_of(steps, 0.7)
    found = reverse.invert(Toy(), BARS, x0, draw(x0, steps, [3, 4]), times)
    orders = []
    original = reverse.Solver.step

    def step(self, number, x, eps, first_order=False):
        orders.append(first_order)
        return original(self, number, x, eps, first_order)

    monkeypatch.setattr(reverse.Solver, "step", step)
    reverse.generate(Toy(), BARS, found)
    assert orders == [False] * (2 * steps - 1) + [steps < 15]


def test_duplicate_time_steps_are_dropped(x0) -> None:
    times = reverse.timesteps_of(16, 0.99)
    assert len(times) == len(set(times)) == 9 and times[-1] == 1
    found = reverse.invert(Toy(), BARS, x0, draw(x0, 9, [3, 4]), times)
    assert bool(torch.isfinite(reverse.generate(Toy(), BARS, found)).all())


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_any_number_of_steps(x0, steps: int) -> None:
    found = nullface.invert(Toy(), BARS, x0, draw(x0, nullface.depth_of(steps, 0.7), [3, 4]), steps)
    assert bool(torch.isfinite(nullface.generate(Toy(), BARS, found)).all())


def test_bad_settings_say_what_is_wrong(x0) -> None:
    found = inverted(x0)
    for eta in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="eta must be"):
            nullface.generate(Toy(), BARS, found, eta=eta)
    with pytest.raises(InputError, match="so never"):
        nullface.generate(Toy(), BARS, found, mask=torch.zeros(1, 1, 6, 5), mask_delay=12)
    with pytest.raises(InputError, match="invert with a lower skip"):
        nullface.generate(Toy(), BARS, found, depth=13)
    for skip in (1.0, -0.1):
        with pytest.raises(InputError, match="skip must be"):
            nullface.depth_of(100, skip)
    with pytest.raises(InputError, match="steps must be"):
        inverted(x0, steps=1001, depth=3)
    with pytest.raises(InputError, match="draws of noise"):
        inverted(x0, steps=4, depth=5)
    with pytest.raises(InputError, match="fewer than two"):
        reverse.timesteps_of(100, 0.999)
    with pytest.raises(InputError, match="draws of noise"):
        reverse.invert(Toy(), BARS, x0, draw(x0, 3, [3, 4]), reverse.timesteps_of(20, 0.7))
    with pytest.raises(InputError, match="0 or negative"):
        times = reverse.timesteps_of(5, 0.7)
        reverse.generate(Toy(), BARS, reverse.invert(Toy(), BARS, x0, draw(x0, 5, [3, 4]), times), guidance=1.0)


def test_the_dials() -> None:
    assert [guidance_of("nullface", s) for s in (0, 0.5, 1, 1.5)] == [0, 5, 10, 10]
    assert [guidance_of("reverse_personalization", s) for s in (0, 1, 1.5)] == [0, -10, -15]
    assert [round(skip_of("nullface", s), 3) for s in (0, 1, 1.25, 1.5)] == [0.7, 0.7, 0.65, 0.6]
    assert skip_of("reverse_personalization", 1.5) == 0.7
    assert (fitting(768), fitting(2048)) == ("nullface", "reverse_personalization")
    with pytest.raises(InputError, match="strength"):
        guidance_of("nullface", 1.6)


def test_an_embedding_is_turned_within_its_angle() -> None:
    vector = torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(0)), dim=0).numpy()
    for seed in range(20):
        turned = within_angle(2 * vector, 40.0, seed)
        assert (turned @ vector) / 2 > 0.766 - 1e-6
        assert float((turned**2).sum()) == pytest.approx(4, abs=1e-5)
    with pytest.raises(InputError, match="angle"):
        within_angle(vector, 181.0, 0)
