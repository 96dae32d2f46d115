"""Face Anonymization Made Simple (Kung et al., WACV 2025): anonymize a face, or show one person with another's pose.

encode (VAE, CLIP, driving ReferenceNet: once a picture)
  -> condition (degree: Eq. 1, source ReferenceNet, Eq. 2)
  -> denoise (the UNet reads both references in its self-attentions)
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

GUIDANCE = 4.0
DEGREE = 1.25
STEPS = 25
MOST_DEGREE = 2.0
MULTIPLE = 8
"""Pictures are resized to multiples of this."""


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded pictures, ready for any degree.

    Attributes:
        source_latents, source_embedding: ``(B, 4, h, w)`` and ``(B, 1, D)``.
        driving_embedding: ``(B, 1, D)``.
        driving: states of the driving ReferenceNet.
        unconditional: states of the source ReferenceNet without a picture, one row.
    """

    source_latents: Tensor
    source_embedding: Tensor
    driving_embedding: Tensor
    driving: States
    unconditional: States


@dataclass(frozen=True)
class Conditions:
    """What the denoiser reads.

    Attributes:
        source: states a guidance row: unconditional, conditional; one entry where guidance cannot matter.
        driving: states of the driving picture.
        context: tokens of the cross-attentions, ``(rows * B, 2, D)``.
    """

    source: tuple[States, ...]
    driving: States
    context: Tensor


class ReferenceNetPipeline:
    """See the module.

    Args:
        unet: the denoiser, a ``diffusers.UNet2DConditionModel``.
        source_net, driving_net: ``referencenet`` and ``conditioning_referencenet`` of the checkpoint.
        vae: a ``diffusers.AutoencoderKL`` of Stable Diffusion 1 or 2.
        image_encoder: a ``transformers.CLIPVisionModel`` whose hidden size is the UNets' cross-attention size.
        scheduler: any of diffusers; DPM-Solver++ with Stable Diffusion 2.1's schedule when omitted.
        clip_processor: a CLIP image processor on Pillow; the standard one when omitted.
        offload: keep all networks but the denoiser on the CPU while they are not needed.
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
        self.clip_processor = clip_processor or _clip_processor()
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
            # The libraries' own versions warn about layers that these networks do not have.
            torch.nn.Module.to(net, *where)
        self.source_net.forget()
        self.driving_net.forget()
        return self

    def compile(self) -> None:
        """Compile the denoiser's blocks (torch.compile); the first step of each size takes a minute."""
        self.unet.compile()

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
        """Take the identity out of faces and keep pose, expression, gaze and background.

        Args:
            images: ``(B, 3, H, W)``, RGB in [0, 1], aligned like FFHQ; trained at 512 px.
            degree: d of Eq. 1 and 2: above 0, up to 2; 1 ignores the person, 1.25 is recommended, more moves away.
            guidance: classifier-free guidance scale g; up to 1 switches it off.
            generators: one a face, so that no face depends on the others; seeded 0, 1, ... when omitted.
            latents: initial noise ``(B, 4, H/8, W/8)`` instead of drawn noise.
            reference_rng: draw like the authors' code: VAE and step noise from torch's global state, initial noise from
                ``generators[0]``.

        Returns:
            ``(B, 3, H', W')`` with sides rounded down to multiples of 8.

        Raises:
            InputError: a degree of 0 or less (use ``swap``), a bad size, or a wrong number of generators.
        """
        if not 0 < degree <= MOST_DEGREE:
            raise InputError(
                f"the anonymization degree must be above 0 and at most {MOST_DEGREE:g}, got {degree:g}; swap() shows"
                " another person"
            )
        draws = Draws.of(images.shape[0], generators, reference_rng)
        return self.generate(self.encode(images, images, draws), degree, guidance, steps, draws, latents, progress)

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
        """Show the person of ``source`` with pose, expression and background of ``driving``; see ``anonymize``."""
        if source.shape[0] != driving.shape[0]:
            raise InputError(f"{source.shape[0]} source and {driving.shape[0]} driving pictures do not pair up")
        draws = Draws.of(driving.shape[0], generators, reference_rng)
        return self.generate(self.encode(source, driving, draws), 0.0, guidance, steps, draws, latents, progress)

    @torch.no_grad()
    def encode(self, source: Tensor, driving: Tensor, draws: Draws) -> Encoded:
        """Everything that no degree changes. For anonymization both pictures are the same one, encoded twice by the
        VAE."""
        same = source is driving
        driving = fit(driving)
        source = driving if same else fit(source, driving.shape[-2:])
        source_latents = self._to_latents(source, draws)
        driving_latents = self._to_latents(driving, draws)
        driving_embedding = self._embed(driving)
        source_embedding = driving_embedding if same else self._embed(source)
        with self._awake(self.driving_net.unet):
            states = self.driving_net.record(driving_latents, driving_embedding)
        with self._awake(self.source_net.unet):
            unconditional = self.source_net.unconditional(source_latents, source_embedding)
        return Encoded(source_latents, source_embedding, driving_embedding, states, unconditional)

    @torch.no_grad()
    def generate(
        self,
        encoded: Encoded,
        degree: float,
        guidance: float,
        steps: int,
        draws: Draws,
        latents: Tensor | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """Pictures ``(B, 3, H, W)`` of encoded faces at a degree; 0 swaps."""
        return self.decode(
            self.denoise(self.condition(encoded, degree, guidance), encoded, guidance, steps, draws, latents, progress)
        )

    @torch.no_grad()
    def condition(self, encoded: Encoded, degree: float, guidance: float) -> Conditions:
        """Eq. 1 and 2.

        The weakened embedding also enters the source ReferenceNet, whose answer is not linear in it. So a new degree
        costs one run of its truncated conditional row; a degree of 1 costs none.
        """
        embedding = weaken(encoded.source_embedding, degree)
        nothing = torch.zeros_like(embedding)
        if degree == 1:
            return Conditions(
                (encoded.unconditional,), encoded.driving, torch.cat([nothing, encoded.driving_embedding], 1)
            )
        with self._awake(self.source_net.unet):
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
        draws: Draws,
        latents: Tensor | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """Scaled latents ``(B, 4, h, w)``."""
        if steps < 1:
            raise InputError(f"at least 1 denoising step is needed, got {steps}")
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        shape = encoded.source_latents.shape
        noise = draws.initial(shape, encoded.source_latents) if latents is None else latents.to(encoded.source_latents)
        if noise.shape != shape:
            raise InputError(
                f"the initial latents have shape {tuple(noise.shape)}, but these pictures need {tuple(shape)}"
            )
        x = noise * scheduler.init_noise_sigma
        rows = len(conditions.source)
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        extra = {"generator": draws.step} if takes_generator and draws.step is not None else {}
        with reading(self.unet, conditions.source, conditions.driving):
            for done, t in enumerate(scheduler.timesteps):
                progress(done, steps, "denoising")
                seen = scheduler.scale_model_input(torch.cat([x] * rows) if rows > 1 else x, t)
                answer = self.unet(seen, t, conditions.context).sample
                if rows > 1:
                    unconditional, conditional = answer.chunk(2)
                    answer = (1 - guidance) * unconditional + guidance * conditional
                x = scheduler.step(answer, t, x, **extra).prev_sample
        progress(steps, steps, "denoising")
        return x

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1], float32."""
        with self._awake(self.vae):
            pixels = self.vae.decode((latents / LATENT_SCALE).to(self.vae.dtype)).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def _to_latents(self, images: Tensor, draws: Draws) -> Tensor:
        with self._awake(self.vae):
            distribution = self.vae.encode((images * 2 - 1).to(self.vae.device, self.vae.dtype)).latent_dist
        # Channels-last group norms lose digits on the CPU.
        return (distribution.sample(generator=draws.encoder) * LATENT_SCALE).to(self.dtype).contiguous()

    def _embed(self, images: Tensor) -> Tensor:
        """CLIP's pooled class token after the last norm, ``(B, 1, D)``; preprocessed in float32, since numpy knows no
        bfloat16."""
        pixels = self.clip_processor(images=images.float().cpu(), do_rescale=False, return_tensors="pt").pixel_values
        with self._awake(self.image_encoder):
            seen = self.image_encoder(pixels.to(self.image_encoder.device, self.image_encoder.dtype)).pooler_output
        return seen[:, None].to(self.device, self.dtype)

    @contextmanager
    def _awake(self, net: torch.nn.Module) -> Iterator[None]:
        """Have a network on the denoiser's device for as long as it is needed."""
        if self.offload:
            torch.nn.Module.to(net, self.device)
        try:
            yield
        finally:
            if self.offload:
                torch.nn.Module.to(net, "cpu")


@dataclass(frozen=True)
class Draws:
    """Where random numbers come from: the VAE's posterior, the initial noise, the noise of each step.

    None stands for torch's global state.
    """

    encoder: list[torch.Generator] | None
    noise: list[torch.Generator]
    step: list[torch.Generator] | None

    @classmethod
    def of(cls, faces: int, generators: Sequence[torch.Generator], reference_rng: bool) -> Draws:
        if reference_rng:
            if len(generators) != 1:
                raise InputError(f"reference_rng draws all initial noise from one generator, got {len(generators)}")
            return cls(None, list(generators), None)
        own = list(generators) or [torch.Generator().manual_seed(i) for i in range(faces)]
        if len(own) != faces:
            raise InputError(f"{faces} faces need {faces} generators, got {len(own)}")
        return cls(own, own, own)

    def initial(self, shape: torch.Size, like: Tensor) -> Tensor:
        from diffusers.utils.torch_utils import randn_tensor

        generator: Any = self.noise if len(self.noise) > 1 else self.noise[0]
        return randn_tensor(shape, generator=generator, device=like.device, dtype=like.dtype)


def fit(images: Tensor, size: tuple[int, int] | torch.Size | None = None) -> Tensor:
    """Resize ``(B, 3, H, W)`` in [0, 1] to ``size``, or to its own sides rounded down to multiples of 8, by Lanczos as
    the authors do.

    Raises:
        InputError: it is no such batch, or a side is shorter than 8 pixels.
    """
    import numpy as np
    from PIL import Image

    if images.dim() != 4 or images.shape[1] != 3 or images.shape[0] == 0:
        raise InputError(f"pictures must have shape (B, 3, H, W), got {tuple(images.shape)}")
    height, width = (n - n % MULTIPLE for n in images.shape[-2:]) if size is None else size
    if height < MULTIPLE or width < MULTIPLE:
        raise InputError(
            f"pictures of {images.shape[-1]} x {images.shape[-2]} pixels are too small; they need 8 a side and were"
            " trained with 512"
        )
    if (height, width) == tuple(images.shape[-2:]):
        return images.contiguous()
    resized = []
    for image in images.clamp(0, 1).float().cpu():
        pillow = Image.fromarray((image.movedim(0, -1) * 255).round().byte().numpy())
        resized.append(
            torch.from_numpy(np.array(pillow.resize((width, height), Image.Resampling.LANCZOS))).movedim(-1, 0)
        )
    return (torch.stack(resized).float() / 255).contiguous()


def default_scheduler() -> Any:
    """DPM-Solver++ (2M): 20 to 30 steps do what takes the paper's DDPM 200."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler.from_config({**SCHEDULER, "algorithm_type": "dpmsolver++"})


def paper_scheduler() -> Any:
    """DDPM as in the paper: 200 steps."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(SCHEDULER)


def _clip_processor() -> Any:
    import transformers

    # With torchvision installed the default one of transformers 5 resizes differently from what the networks were
    # trained with.
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind()
