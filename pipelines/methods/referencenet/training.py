"""Train Face Anonymization Made Simple (paper, section 3.4): ``faceveil train referencenet --config FILE``.

The denoiser learns to show the person of a source image with everything else of a driving image. Anonymization
is not trained: it is what extrapolation away from the source does (Eq. 1 and 2).

All random numbers depend on the seed and the step, none on a global state, so a run that was stopped ends as if it had
not been.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...training.checkpoints import PART, newest_folder, save_folder
from ...training.interruption import stop_on_signals
from .attention import read_in_training, self_attentions
from .files import DRIVING, SOURCE, UNET, open_image_encoder, open_unet, open_vae
from .network import LATENT_SCALE, SCHEDULER, ReferenceNet
from .pipeline import RandomSources, ReferenceNetPipeline
from .triplets import ResumableSampler, TripletDataset, read_triplets, seeded_rng

PRECISIONS = ("no", "fp16", "bf16")
STATES = "states"
PATHS = ("triplets", "images", "start", "vae", "image_encoder", "output")
"""Settings that must be given, relative to the file of the settings."""


@dataclass(frozen=True)
class Config:
    """Settings of a run; the defaults are the paper's.

    Attributes:
        triplets, images: the jsonl file and the folder that its paths start from.
        start: a folder with ``unet`` (Stable Diffusion 2.1's, taken for all three networks) or with the public
            checkpoint's three.
        vae, image_encoder: as for ``files.open_pipeline``.
        output: folder of the trained networks, states and logs.
        steps: optimizer steps; the first ``phase_one`` of them use all triplets, the others those with a real truth.
        drop: share of samples without a source image (classifier-free guidance).
    """

    triplets: str
    images: str
    start: str
    vae: str
    image_encoder: str
    output: str
    size: int = 512
    batch: int = 1
    accumulation: int = 8
    steps: int = 435_000
    phase_one: int = 300_000
    learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    warmup: int = 0
    clip_gradient: float = 1.0
    drop: float = 0.1
    precision: str = "fp16"
    checkpoint_gradients: bool = True
    ema: float = 0.0
    seed: int = 0
    workers: int = 2
    save_every: int = 5000
    validate_every: int = 5000
    validation: int = 4

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        for name in ("size", "batch", "accumulation", "steps", "save_every", "validate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.drop < 1 or not 0 <= self.ema < 1:
            raise InputError("drop and ema must be at least 0 and below 1")
        if self.size % 8:
            raise InputError(f"size must be a multiple of 8, got {self.size}")


class Trainee(torch.nn.Module):
    """The three networks as one, so that they are prepared, saved and clipped together."""

    def __init__(self, unet: Any, source: Any, driving: Any) -> None:
        super().__init__()
        self.unet, self.source, self.driving = unet, source, driving
        self.source_net, self.driving_net = ReferenceNet(source), ReferenceNet(driving)
        self._references = read_in_training(unet)
        unet.requires_grad_(True)
        for net in (source, driving):
            net.requires_grad_(False)
            for parameter in reference_parameters(net):
                parameter.requires_grad_(True)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        source: Tensor,
        source_embedding: Tensor,
        driving: Tensor,
        driving_embedding: Tensor,
    ) -> Tensor:
        """Predicted v ``(B, 4, h, w)``; latents are scaled, embeddings ``(B, 1, D)``."""
        source_states = self.source_net.record(source, source_embedding)
        driving_states = self.driving_net.record(driving, driving_embedding)
        self._references.update({key: (source_states[key], driving_states[key]) for key in source_states})
        return self.unet(noisy, time, torch.cat([source_embedding, driving_embedding], 1)).sample

    def checkpoint_gradients(self) -> None:
        """Trade time for memory in all three networks."""
        for net in (self.unet, self.source, self.driving):
            net.enable_gradient_checkpointing()


def reference_parameters(net: Any) -> list[torch.nn.Parameter]:
    """What of a ReferenceNet is trained: its transformer blocks, without what never gets a gradient.

    Behind the last recorded state nothing is read. And a cross-attention over a single token does not depend on its
    queries and keys.
    """
    found = self_attentions(net)
    last = next(site for site in reversed(found) if site.first)
    trained: list[torch.nn.Parameter] = []
    for site in found:
        block = net.get_submodule(site.module.removesuffix(".attn1"))
        if site is last:
            return [*trained, *block.norm1.parameters()]
        silent_parts = {id(p) for part in (block.norm2, block.attn2.to_q, block.attn2.to_k) for p in part.parameters()}
        trained += [p for p in block.parameters() if id(p) not in silent_parts]
    return trained


def train(config: Config, resume: bool = False, progress: Progress = silent) -> dict[str, Any]:
    """Train, validate, save; with ``resume`` from the latest saved state on.

    Returns:
        The steps taken and the mean loss of the last hundred.
    """
    return _Run(config, progress).run(resume)


class _Run:
    def __init__(self, config: Config, progress: Progress) -> None:
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        self.config, self.progress, self.output = config, progress, Path(config.output)
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.accumulation,
            log_with="tensorboard",
            project_config=ProjectConfiguration(project_dir=str(self.output), logging_dir=str(self.output / "logs")),
        )
        self.noise = DDPMScheduler.from_config(SCHEDULER)
        unet, source, driving = (open_unet(folder, "face-anon-simple-unet") for folder in _start(Path(config.start)))
        trainee = Trainee(unet, source, driving).train()
        if config.checkpoint_gradients:
            trainee.checkpoint_gradients()
        self.trained = [p for p in trainee.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.trained, lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=config.weight_decay
        )
        rate = get_scheduler(
            "constant_with_warmup", optimizer, num_warmup_steps=config.warmup * self.accelerator.num_processes
        )
        self.trainee, self.optimizer, self.rate = self.accelerator.prepare(trainee, optimizer, rate)
        self.ema = EMAModel(self.trained, decay=config.ema) if config.ema else None
        if self.ema is not None:
            self.accelerator.register_for_checkpointing(self.ema)
        device, dtype = (
            self.accelerator.device,
            {"fp16": torch.float16, "bf16": torch.bfloat16}.get(config.precision, torch.float32),
        )
        self.vae = open_vae(Path(config.vae)).to(device, dtype)
        self.image_encoder = open_image_encoder(Path(config.image_encoder)).to(device, dtype)
        self.weight_dtype = dtype
        self.pipeline = ReferenceNetPipeline(
            unet, trainee.source_net, trainee.driving_net, self.vae, self.image_encoder
        )
        triplets = read_triplets(Path(config.triplets), Path(config.images))
        real = [t for t in triplets if t.truth_is_real]
        if not real and config.phase_one < config.steps:
            raise InputError("the second phase needs triplets with a real truth; set phase_one to steps, or add some")
        self.phases = [
            TripletDataset(part, Path(config.images), config.size, config.seed, self.pipeline.clip_processor)
            for part in (triplets, real or triplets)
        ]

    def run(self, resume: bool) -> dict[str, Any]:
        step = self._resume() if resume else 0
        self.accelerator.init_trackers("referencenet")
        losses: list[float] = []
        with stop_on_signals() as stop:
            while step < self.config.steps:
                end = self.config.phase_one if step < self.config.phase_one else self.config.steps
                for batch in self._batches(step, min(end, self.config.steps)):
                    self.progress(step, self.config.steps, "training")
                    losses.append(self._step(step, batch))
                    step += 1
                    self.accelerator.log({"loss": losses[-1], "learning rate": self.rate.get_last_lr()[0]}, step=step)
                    if stop.requested or step % self.config.save_every == 0 or step == self.config.steps:
                        self._save_state(step)
                    if stop.requested:
                        raise KeyboardInterrupt
                    if step % self.config.validate_every == 0:
                        self._validate(step)
        self.progress(step, self.config.steps, "training")
        self._save_networks()
        self.accelerator.end_training()
        return {"steps": step, "loss": sum(losses[-100:]) / max(len(losses[-100:]), 1)}

    def _batches(self, step: int, end: int) -> Any:
        """For each optimizer step from ``step`` to ``end``, its micro-batches for this process."""
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        second = step >= config.phase_one
        data = self.phases[1 if second else 0]
        before = config.phase_one if second else 0
        each = config.batch * config.accumulation * world
        sampler = ResumableSampler(len(data), config.seed + second, (step - before) * each)
        # All processes draw the same order and take turns, so that none sees what another one does.
        loader = iter(
            torch.utils.data.DataLoader(data, batch_size=config.batch, sampler=sampler, num_workers=config.workers)
        )
        for _ in range(step, end):
            micro = [next(loader) for _ in range(config.accumulation * world)]
            yield micro[rank::world]

    def _step(self, step: int, batches: list[dict[str, Tensor]]) -> float:
        total = 0.0
        for place, batch in enumerate(batches):
            with self.accelerator.accumulate(self.trainee):
                generator = torch.Generator().manual_seed(
                    int(seeded_rng(self.config.seed, step, place, self.accelerator.process_index).integers(2**63))
                )
                loss = self._loss(batch, generator)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.trained, self.config.clip_gradient)
                self.optimizer.step()
                self.rate.step()
                self.optimizer.zero_grad()
                total += float(loss.detach())
        if self.ema is not None:
            self.ema.step(self.trained)
        return total / len(batches)

    def _loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            truth, source, driving = (self._latents(batch[key], generator) for key in ("truth", "source", "driving"))
            source_embedding, driving_embedding = (
                self._embedding(batch[f"{key}_clip"]) for key in ("source", "driving")
            )
            rows = truth.shape[0]
            # One draw drops image and description of the source together; the driving image always stays.
            kept = (torch.rand(rows, generator=generator) >= self.config.drop).to(truth)
            source, source_embedding = source * kept.view(-1, 1, 1, 1), source_embedding * kept.view(-1, 1, 1)
            noise = torch.randn(truth.shape, generator=generator).to(truth)
            time = torch.randint(0, self.noise.config.num_train_timesteps, (rows,), generator=generator).to(
                truth.device
            )
            noisy = self.noise.add_noise(truth, noise, time)
            # The last step of this schedule still shows a trace of the image; sampling starts from none.
            last = (time == self.noise.config.num_train_timesteps - 1).view(-1, 1, 1, 1)
            noisy = torch.where(last, noise, noisy)
            target = self.noise.get_velocity(truth, noise, time)
        predicted = self.trainee(noisy, time, source, source_embedding, driving, driving_embedding)
        return torch.nn.functional.mse_loss(predicted.float(), target.float())

    def _latents(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        distribution = self.vae.encode(pixels.to(self.accelerator.device, self.weight_dtype)).latent_dist
        noise = torch.randn(distribution.mean.shape, generator=generator).to(distribution.mean)
        return ((distribution.mean + distribution.std * noise) * LATENT_SCALE).float().contiguous()

    def _embedding(self, pixels: Tensor) -> Tensor:
        return self.image_encoder(pixels.to(self.accelerator.device, self.weight_dtype)).pooler_output[:, None].float()

    def _save_state(self, step: int) -> None:
        """Save everything that the next step depends on."""
        folder = self.output / STATES / f"step-{step:08}"
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            facts = {"step": step, "config": asdict(self.config)}
            save_folder(folder, lambda part: self.accelerator.save_state(str(part)), facts)
        else:
            self.accelerator.save_state(str(folder.with_name(folder.name + PART)))

    def _resume(self) -> int:
        folder, facts = newest_folder(self.output / STATES)
        self.accelerator.load_state(str(folder))
        return int(facts["step"])

    def _save_networks(self) -> None:
        """In the public checkpoint's layout; smoothed weights where they are kept."""
        if not self.accelerator.is_main_process:
            return
        trainee = self.accelerator.unwrap_model(self.trainee)
        if self.ema is not None:
            self.ema.store(self.trained)
            self.ema.copy_to(self.trained)
        for name, net in ((UNET, trainee.unet), (SOURCE, trainee.source), (DRIVING, trainee.driving)):
            part = self.output / f"{name}.part"
            net.save_pretrained(part)
            shutil.rmtree(self.output / name, ignore_errors=True)
            part.replace(self.output / name)
        if self.ema is not None:
            self.ema.restore(self.trained)

    def _validate(self, step: int) -> None:
        """Swap some of the triplets and show source, driving, result and truth in TensorBoard."""
        if not self.accelerator.is_main_process:
            return
        data = self.phases[1]
        rows = []
        for index in range(min(self.config.validation, len(data))):
            item = data[0, index]
            source, driving, truth = ((item[key][None] + 1) / 2 for key in ("source", "driving", "truth"))
            rows.append(torch.cat([source, driving, self.swap(source, driving, index), truth], -1))
        grid = torch.cat(rows, -2)[0]
        self.accelerator.get_tracker("tensorboard").writer.add_image("source, driving, result, truth", grid, step)

    @torch.no_grad()
    def swap(self, source: Tensor, driving: Tensor, seed: int) -> Tensor:
        """A swap with the networks as they are; their training processors are put back."""
        unet = self.accelerator.unwrap_model(self.trainee).unet
        before, self.pipeline.unet = dict(unet.attn_processors), unet
        self.pipeline.source_net.clear_cache()
        try:
            with self.accelerator.autocast():
                encoder_draws = RandomSources.of(1, [torch.Generator().manual_seed(seed)], False)
                return self.pipeline.generate(
                    self.pipeline.encode(source, driving, encoder_draws), 0.0, 4.0, 25, encoder_draws
                ).cpu()
        finally:
            unet.set_attn_processor(before)


def _start(folder: Path) -> list[Path]:
    """Folders of denoiser, source and driving net."""
    if (folder / SOURCE).is_dir() and (folder / DRIVING).is_dir():
        return [folder / UNET, folder / SOURCE, folder / DRIVING]
    return [folder / UNET] * 3
