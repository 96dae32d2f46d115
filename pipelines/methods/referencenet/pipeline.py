"""Face Anonymization Made Simple (Kung et al., WACV 2025): anonymize a face, or swap in the face of a source image.

encode (VAE, CLIP, driving ReferenceNet: once per image)
  -> condition (anonymization degree: Eq. 1, source ReferenceNet, Eq. 2)
  -> denoise (the self-attentions of the UNet also read the states of both ReferenceNets)
  -> decode
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from .attention import States, reading
from .network import LATENT_SCALE, SCHEDULER, ReferenceNet, mix, weaken
from .preprocess import default_clip_processor, fit

GUIDANCE = 4.0
"""Default classifier-free guidance scale."""
DEGREE = 1.25
"""Default anonymization degree."""
STEPS = 25
"""Default number of denoising steps, for ``default_scheduler``."""
MAX_DEGREE = 2.0


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded images; no field depends on the degree.

    Attributes:
        source_latents: VAE latents of the source images, ``(B, 4, h, w)``.
        source_embedding: CLIP embeddings of the source images, ``(B, 1, D)``.
        driving_embedding: CLIP embeddings of the driving images, ``(B, 1, D)``.
        driving: states of the driving ReferenceNet, ``(B, N, C)``.
        unconditional: states of the source ReferenceNet for zero latents and a zero embedding, ``(1, N, C)``.
    """

    source_latents: Tensor
    source_embedding: Tensor
    driving_embedding: Tensor
    driving: States
    unconditional: States


@dataclass(frozen=True)
class Conditions:
    """The conditioning inputs of the denoiser.

    Attributes:
        source: source states of each guidance row: unconditional, conditional. One entry if guidance has no effect.
        driving: states of the driving images.
        context: tokens for the cross-attentions, ``(guidance rows * B, 2, D)``.
    """

    source: tuple[States, ...]
    driving: States
    context: Tensor


class ReferenceNetPipeline:
    """The pipeline that the module docstring describes.

    Args:
        unet: the denoiser, a ``diffusers.UNet2DConditionModel``.
        source_net, driving_net: ``referencenet`` and ``conditioning_referencenet`` of the checkpoint.
        vae: a ``diffusers.AutoencoderKL`` of Stable Diffusion 1 or 2.
        image_encoder: a ``transformers.CLIPVisionModel`` whose hidden size equals ``cross_attention_dim`` of the UNets.
        scheduler: a diffusers scheduler. The default is DPM-Solver++ with the noise schedule of Stable Diffusion 2.1.
        clip_processor: a CLIP image processor that resizes with Pillow. The default has CLIP's standard settings.
        offload: keep all networks except the denoiser on the CPU while they are not in use.
    """

    def __init__(
        self,
        unet: Any,
        source_net: ReferenceNet,
        driving_net: ReferenceNet,
        vae: Any,
        image_encoder: Any,
        scheduler: Any = None,
        clip_processor: Any = None,
        offload: bool = False,
    ) -> None:
        self.unet = unet
        self.source_net, self.driving_net = source_net, driving_net
        self.vae, self.image_encoder = vae, image_encoder
        self.scheduler = scheduler or default_scheduler()
        self.clip_processor = clip_processor or default_clip_processor()
        self.offload = offload

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def to(self, *where: Any) -> ReferenceNetPipeline:
        """Move all networks to a device or dtype."""
        for net in (self.unet, self.source_net.unet, self.driving_net.unet, self.vae, self.image_encoder):
            # The ``to`` methods of diffusers and transformers warn about layers that these networks do not have.
            torch.nn.Module.to(net, *where)
        self.source_net.clear_cache()
        self.driving_net.clear_cache()
        return self

    @torch.no_grad()
    def anonymize(
        self,
        images: Tensor,
        degree: float = DEGREE,
        guidance: float = GUIDANCE,
        steps: int = STEPS,
        generators: Sequence[torch.Generator] = (),
        latents: Tensor | None = None,
        reference_rng: bool = False,
        progress: Progress = silent,
    ) -> Tensor:
        """Remove the identity from faces and keep pose, expression, gaze and background.

        Args:
            images: ``(B, 3, H, W)``, RGB in [0, 1], aligned like FFHQ. The networks were trained at 512 pixels.
            degree: anonymization degree d of Eq. 1 and 2, above 0 and at most 2. At 1 the source identity has no
                effect, above 1 the result moves away from it; 1.25 is recommended.
            guidance: classifier-free guidance scale g; values up to 1 switch guidance off.
            steps: number of denoising steps.
            generators: one per face, so that no result depends on the other faces. The default is one generator per
                face, seeded with 0, 1, ...
            latents: initial noise ``(B, 4, H/8, W/8)``; sampled if None.
            reference_rng: sample in the order of the authors' code: VAE and step noise from torch's global random
                state, initial noise from ``generators[0]``.
            progress: called once per step.

        Returns:
            ``(B, 3, H', W')`` with sides rounded down to multiples of 8.

        Raises:
            InputError: a degree of 0 or less (use ``swap``), a bad size, or a wrong number of generators.
        """
        if not 0 < degree <= MAX_DEGREE:
            raise InputError(
                f"the anonymization degree must be above 0 and at most {MAX_DEGREE:g}, got {degree:g}; use swap() for a"
                " face swap"
            )
        random_sources = RandomSources.of(images.shape[0], generators, reference_rng)
        return self.generate(
            self.encode(images, images, random_sources), degree, guidance, steps, random_sources, latents, progress
        )

    # The last six arguments are those of ``anonymize``, written out so that editors and mypy know them.
    @torch.no_grad()
    def swap(
        self,
        source: Tensor,
        driving: Tensor,
        guidance: float = GUIDANCE,
        steps: int = STEPS,
        generators: Sequence[torch.Generator] = (),
        latents: Tensor | None = None,
        reference_rng: bool = False,
        progress: Progress = silent,
    ) -> Tensor:
        """Generate faces with the identity of ``source`` and the pose, expression and background of ``driving``.

        Args:
            source, driving: ``(B, 3, H, W)``, RGB in [0, 1], aligned like FFHQ.
            guidance, steps, generators, latents, reference_rng, progress: as for ``anonymize``.

        Returns:
            ``(B, 3, H', W')`` with the sides of ``driving`` rounded down to multiples of 8.

        Raises:
            InputError: the numbers of images differ, or as for ``anonymize``.
        """
        if source.shape[0] != driving.shape[0]:
            raise InputError(
                f"there are {source.shape[0]} source images but {driving.shape[0]} driving images; give equal numbers"
                " of both"
            )
        random_sources = RandomSources.of(driving.shape[0], generators, reference_rng)
        return self.generate(
            self.encode(source, driving, random_sources), 0.0, guidance, steps, random_sources, latents, progress
        )

    @torch.no_grad()
    def encode(self, source: Tensor, driving: Tensor, random_sources: RandomSources) -> Encoded:
        """Compute everything that does not depend on the degree.

        For anonymization pass the same tensor as ``source`` and ``driving``. The VAE then encodes it twice, with
        different posterior samples, as in the authors' code.
        """
        same = source is driving
        driving = fit(driving)
        source = driving if same else fit(source, driving.shape[-2:])
        source_latents = self._to_latents(source, random_sources)
        driving_latents = self._to_latents(driving, random_sources)
        driving_embedding = self._embed(driving)
        source_embedding = driving_embedding if same else self._embed(source)
        with self._on_device(self.driving_net.unet):
            states = self.driving_net.record(driving_latents, driving_embedding)
        with self._on_device(self.source_net.unet):
            unconditional = self.source_net.unconditional(source_latents, source_embedding)
        return Encoded(source_latents, source_embedding, driving_embedding, states, unconditional)

    @torch.no_grad()
    def generate(
        self,
        encoded: Encoded,
        degree: float,
        guidance: float,
        steps: int,
        random_sources: RandomSources,
        latents: Tensor | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """Generate images ``(B, 3, H, W)`` from encoded images at an anonymization degree; degree 0 swaps."""
        return self.decode(
            self.denoise(
                self.condition(encoded, degree, guidance), encoded, guidance, steps, random_sources, latents, progress
            )
        )

    @torch.no_grad()
    def condition(self, encoded: Encoded, degree: float, guidance: float) -> Conditions:
        """Apply Eq. 1 and 2 and build the conditioning inputs of the denoiser.

        The scaled embedding of Eq. 1 is also an input of the source ReferenceNet, which is not linear in it. A new
        degree therefore needs one forward pass of the source ReferenceNet. A degree of 1 needs none.
        """
        embedding = weaken(encoded.source_embedding, degree)
        nothing = torch.zeros_like(embedding)
        if degree == 1:
            return Conditions(
                (encoded.unconditional,), encoded.driving, torch.cat([nothing, encoded.driving_embedding], 1)
            )
        with self._on_device(self.source_net.unet):
            states = self.source_net.record(encoded.source_latents, embedding)
        if degree > 0:
            states = mix(states, encoded.unconditional, degree)
        context = torch.cat([embedding, encoded.driving_embedding], 1)
        if guidance <= 1:
            return Conditions((states,), encoded.driving, context)
        without = torch.cat([nothing, encoded.driving_embedding], 1)
        return Conditions((encoded.unconditional, states), encoded.driving, torch.cat([without, context]))

    @torch.no_grad()
    def denoise(
        self,
        conditions: Conditions,
        encoded: Encoded,
        guidance: float,
        steps: int,
        random_sources: RandomSources,
        latents: Tensor | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """Run the denoising steps.

        Returns:
            Scaled latents ``(B, 4, h, w)``.

        Raises:
            InputError: ``steps`` is below 1, or ``latents`` has another shape than the latents of the images.
        """
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        shape = encoded.source_latents.shape
        noise = (
            random_sources.initial(encoded.source_latents) if latents is None else latents.to(encoded.source_latents)
        )
        if noise.shape != shape:
            raise InputError(
                f"the initial latents have shape {tuple(noise.shape)}, but these images need {tuple(shape)}"
            )
        x = noise * scheduler.init_noise_sigma
        rows = len(conditions.source)
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        extra = {"generator": random_sources.step} if takes_generator and random_sources.step is not None else {}
        with reading(self.unet, conditions.source, conditions.driving):
            for done, t in enumerate(scheduler.timesteps):
                progress(done, steps, "denoising")
                model_input = scheduler.scale_model_input(torch.cat([x] * rows) if rows > 1 else x, t)
                prediction = self.unet(model_input, t, conditions.context).sample
                if rows > 1:
                    unconditional, conditional = prediction.chunk(2)
                    prediction = (1 - guidance) * unconditional + guidance * conditional
                x = scheduler.step(prediction, t, x, **extra).prev_sample
        progress(steps, steps, "denoising")
        return x

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents to images ``(B, 3, H, W)`` in [0, 1], float32."""
        with self._on_device(self.vae):
            pixels = self.vae.decode((latents / LATENT_SCALE).to(self.vae.dtype)).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def _to_latents(self, images: Tensor, random_sources: RandomSources) -> Tensor:
        with self._on_device(self.vae):
            distribution = self.vae.encode((images * 2 - 1).to(self.vae.device, self.vae.dtype)).latent_dist
        sample = distribution.mean + distribution.std * noise_like(distribution.mean, random_sources.encoder)
        # GroupNorm on the CPU is less exact in the channels_last memory format.
        return (sample * LATENT_SCALE).to(self.dtype).contiguous()

    def _embed(self, images: Tensor) -> Tensor:
        """Compute CLIP's pooled class token after the last norm, ``(B, 1, D)``.

        The CLIP preprocessing runs in float32, because numpy has no bfloat16.
        """
        pixels = self.clip_processor(images=images.float().cpu(), do_rescale=False, return_tensors="pt").pixel_values
        with self._on_device(self.image_encoder):
            pooled = self.image_encoder(pixels.to(self.image_encoder.device, self.image_encoder.dtype)).pooler_output
        return pooled[:, None].to(self.device, self.dtype)

    @contextmanager
    def _on_device(self, net: torch.nn.Module) -> Iterator[None]:
        """Move a network to the denoiser's device inside the context and back to the CPU after it, if ``offload``."""
        if self.offload:
            torch.nn.Module.to(net, self.device)
        try:
            yield
        finally:
            if self.offload:
                torch.nn.Module.to(net, "cpu")


@dataclass(frozen=True)
class RandomSources:
    """The random generators of a run.

    Attributes:
        encoder: generators of the VAE posterior samples, or None for torch's global random state.
        noise: generators of the initial noise.
        step: generators of the noise of each step, or None for torch's global random state.
    """

    encoder: list[torch.Generator] | None
    noise: list[torch.Generator]
    step: list[torch.Generator] | None

    @classmethod
    def of(cls, faces: int, generators: Sequence[torch.Generator], reference_rng: bool) -> RandomSources:
        """Build the generators for a number of faces; see ``ReferenceNetPipeline.anonymize``.

        Raises:
            InputError: the number of generators does not fit.
        """
        if reference_rng:
            if len(generators) != 1:
                raise InputError(
                    f"reference_rng needs exactly one generator for the initial noise, got {len(generators)}"
                )
            return cls(None, list(generators), None)
        own = list(generators) or [torch.Generator().manual_seed(i) for i in range(faces)]
        if len(own) != faces:
            raise InputError(f"{faces} faces need {faces} generators, got {len(own)}")
        return cls(own, own, own)

    def initial(self, like: Tensor) -> Tensor:
        """Sample the initial noise in the shape, on the device and in the dtype of ``like``."""
        return noise_like(like, self.noise)


def noise_like(like: Tensor, generators: list[torch.Generator] | None) -> Tensor:
    """Normal noise in the shape, on the device and in the dtype of ``like``.

    It is drawn in float32: in half precision, older releases of torch (seen in 2.11) draw other numbers from a seed.
    """
    from diffusers.utils.torch_utils import randn_tensor

    generator: Any = generators[0] if generators is not None and len(generators) == 1 else generators
    noise: Tensor = randn_tensor(like.shape, generator=generator, device=like.device, dtype=torch.float32)
    return noise.to(like.dtype)


def default_scheduler() -> Any:
    """Build the default scheduler, DPM-Solver++ (2M). It needs 20 to 30 steps where the paper's DDPM needs 200."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler.from_config({**SCHEDULER, "algorithm_type": "dpmsolver++"})


def paper_scheduler() -> Any:
    """Build the scheduler of the paper, DDPM. The paper uses 200 steps."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(SCHEDULER)
