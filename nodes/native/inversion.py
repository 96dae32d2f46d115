"""Inversion and generation inside ComfyUI's sampling: its batching, memory management, previews and interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management
import comfy.samplers
import latent_preview
import torch
from torch import Tensor

from ...pipelines.core.errors import InputError
from ...pipelines.core.progress import Progress
from ...pipelines.methods.inversion.denoiser import TRAINED_STEPS, Row
from ...pipelines.methods.inversion.dials import Algorithm as AlgorithmName
from .faceid import adapter_of, keys_and_values, with_identity

Algorithm = Callable[["ModelDenoiser", Tensor, Tensor, Progress], Tensor]
"""Takes the denoiser, the schedule ``(1000,)``, scaled latents ``(B, 4, h, w)`` and a progress; returns latents."""


class ModelDenoiser:
    """A ``Denoiser`` of the MODEL that is being sampled. It predicts noise whatever the MODEL was trained to predict.

    Attributes:
        rows: evaluated so far.
        denoised: the last prediction of the clean latents.
    """

    def __init__(self, guider: Any, options: dict[str, Any]) -> None:
        self._guider, self._options = guider, options
        self._sigmas = guider.inner_model.model_sampling.sigmas
        self.rows = 0
        self.denoised: Tensor | None = None

    @property
    def alphas_bar(self) -> Tensor:
        """The training schedule ``(1000,)``."""
        return (1 / (1 + self._sigmas.cpu().double() ** 2)).float()

    def __call__(self, x: Tensor, t: int, rows: tuple[Row, ...]) -> tuple[Tensor, ...]:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.rows += len(rows) * len(x)
        sigma = self._sigmas[t].to(x)
        scaled = x * (1 + sigma**2) ** 0.5
        conditions = [self._guider.conds[row] for row in rows]
        found = comfy.samplers.calc_cond_batch(
            self._guider.inner_model, conditions, scaled, sigma.expand(len(x)), self._options
        )
        self.denoised = found[-1]
        return tuple((scaled - denoised) / sigma for denoised in found)


class _Guider(comfy.samplers.CFGGuider):
    def set_rows(self, conditions: Mapping[Row, list[Any]]) -> None:
        self.inner_set_conds(dict(conditions))


class _Sampler(comfy.samplers.Sampler):
    """Runs an algorithm instead of a sampler's steps."""

    def __init__(self, algorithm: Algorithm, preview: Callable[..., None]) -> None:
        self._algorithm, self._preview = algorithm, preview

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        assert latent_image is not None
        denoise = ModelDenoiser(model_wrap, extra_args["model_options"])

        def progress(done: int, total: int, what: str) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if denoise.denoised is not None and done:
                self._preview(done - 1, denoise.denoised, None, total)

        return self._algorithm(denoise, denoise.alphas_bar, latent_image.float(), progress)


def run(model: Any, conditions: Mapping[Row, list[Any]], latents: Tensor, algorithm: Algorithm, steps: int) -> Tensor:
    """Run an algorithm on a MODEL.

    Args:
        conditions: CONDITIONING of each row.
        latents: ``(B, 4, h, w)``, unscaled.
        steps: that the algorithm has in all, for the progress bar.

    Returns:
        Latents ``(B, 4, h, w)``, unscaled, on the intermediate device.

    Raises:
        InputError: the MODEL has another noise schedule than Stable Diffusion 1.5 and SDXL.
    """
    sampling = model.get_model_object("model_sampling")
    sigmas = getattr(sampling, "sigmas", torch.zeros(0))
    if len(sigmas) != TRAINED_STEPS:
        raise InputError(
            "inversion needs a Stable Diffusion 1.5 or SDXL model with its own noise schedule; connect Load Checkpoint,"
            " without a node that changes the sampling"
        )
    guider = _Guider(model)
    guider.set_rows(conditions)
    sampler = _Sampler(algorithm, latent_preview.prepare_callback(model, steps))
    # The algorithm knows its time steps; ComfyUI only needs the range.
    span = torch.stack([sigmas[-1], sigmas[0]])
    found = guider.sample(torch.zeros_like(latents), latents, sampler, span, disable_pbar=True, seed=0)
    return found.to(comfy.model_management.intermediate_device())  # type: ignore[no-any-return]


def rows_of(
    model: Any,
    empty: list[Any],
    embeddings: Tensor | None = None,
    attributes: list[Any] | None = None,
    algorithm: AlgorithmName = "nullface",
) -> Mapping[Row, list[Any]]:
    """CONDITIONING of the rows; only those of an inversion where there is no person.

    Args:
        empty: of the text "".
        embeddings: of the people ``(B, D)``.
        attributes: of the prompt for the new faces.

    Raises:
        InputError: the MODEL has no adapter.
    """
    adapter = adapter_of(model)
    away = torch.zeros(0, adapter.embedding_size) if embeddings is None else embeddings
    # NullFace moves towards the opposite embedding, and takes the prompt in both rows.
    away = -away if algorithm == "nullface" else away
    # All in one pass over the adapter's weights.
    pairs = keys_and_values(adapter, torch.cat([torch.zeros(1, adapter.embedding_size), away]))
    nobody, person = [pair[:1] for pair in pairs], [pair[1:] for pair in pairs]
    rows: dict[Row, list[Any]] = {
        "nothing": with_identity(_zeros(empty), nobody),
        "empty": with_identity(empty, nobody),
    }
    if embeddings is not None:
        prompted = attributes or empty
        rows["identity"] = with_identity(prompted if algorithm == "nullface" else empty, person)
        rows["attributes"] = with_identity(prompted, nobody)
    return rows


def _zeros(conditioning: list[Any]) -> list[Any]:
    """Zeros instead of the text, as core's Conditioning Zero Out."""
    return [
        [
            torch.zeros_like(text),
            {k: torch.zeros_like(v) if k == "pooled_output" and v is not None else v for k, v in options.items()},
        ]
        for text, options in conditioning
    ]
