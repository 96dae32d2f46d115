"""Train a restorer (section 3.3, Eq. 5 to 9): ``faceveil train restorer``.

    L_rec   Eq. 6  0.1 |X' - X| + 2 |phi(X') - phi(X)|
    L_adv   Eq. 7  0.1 softplus(-D(X'))
    L_comp  Eq. 8  for both eyes and the mouth: softplus(-D_roi(X'_roi)) + 200 |Gram psi(X'_roi) - Gram psi(X_roi)|
    L_id    Eq. 9  5 (1 - cos(R(X'), R(X_l)))
    L       Eq. 5  their sum

X is the photo, X_l the hybrid image, X' the restored one, psi the features of the local discriminators. As printed, the
paper's L_adv is unbounded; this is the usual form with the same direction. L_id compares with the hybrid image, whose
identity is the protected one, while L_rec pulls to the photo.

The discriminators are trained in the same step: their gradients come from detached images, those of the restorer from
discriminators with constant weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ...core.progress import Progress, silent
from ...faces.face import MIRROR
from ...recognition.embedder import SIZE as JUDGE_SIZE
from ...recognition.embedder import built_in_embedder, embedder_transform
from ...training.devices import Run, Settings, fit
from ...training.loop import subject_of
from .discriminators import Discriminator, r1_penalty
from .generator import Generator
from .pairs import Faces, disturbed_hybrid

PERCEPTUAL, ADVERSARIAL, STYLE = 2.0, 0.1, 200.0
"""Weights of Eq. 6, 7 and 8."""
HALVINGS = (220 / 300, 270 / 300)
"""When the learning rate halves, as shares of all steps."""
R1_WEIGHT, R1_SHARE = 10.0, 1 / 16
"""Weight of the penalty of the discriminators' gradients, and the share of the steps that have it."""
_EYE, _MOUTH = 0.8, 1.25
"""Sides of the regions of eyes and mouth in inter-ocular distances."""
_REGION = 48
"""Side of a region in pixels, for faces of 256 px."""
_SHIFT = 8
"""Largest shift of the images before the features are compared, in pixels, exclusive."""
_JITTER = 0.15
"""Largest change of each color channel."""


@dataclass(frozen=True)
class Recipe:
    """How a restorer is trained; the defaults are the paper's.

    Attributes:
        pixels: weight of the pixels in L_rec.
        identity: weight of L_id.
        ema: decay of the weights' moving average, which is what is kept.
        flip: share of faces that are mirrored.
    """

    steps: int = 300_000
    batch: int = 6
    rate: float = 2e-3
    ema: float = 0.999
    precision: str = "no"
    pixels: float = 0.1
    identity: float = 5.0
    flip: float = 0.5
    seed: int = 0


class Objective(nn.Module):
    """The loss of a batch, of restorer and discriminators together.

    Args:
        generator: the restorer.
        features: phi, frozen: ``Vgg19`` or ``EmbedderFeatures``.
        pixels, identity: weights of the pixels in L_rec, and of L_id.
    """

    def __init__(self, generator: Generator, features: nn.Module, pixels: float, identity: float) -> None:
        super().__init__()
        self.generator, self._pixels, self._identity = generator, pixels, identity
        self.whole, self.eyes, self.mouth = Discriminator(), Discriminator(), Discriminator()
        # In a tuple, so that their weights are neither trained nor saved.
        self._frozen = (features, copy.deepcopy(built_in_embedder().network))

    def forward(self, photo: Tensor, hybrid: Tensor, regions: Tensor, aligned: Tensor, penalize: Tensor) -> Tensor:
        """The loss.

        Args:
            photo, hybrid: X and X_l ``(B, 3, S, S)`` in [0, 1].
            regions: eyes and mouth, for ``affine_grid``, ``(B, 3, 2, 3)``.
            aligned: the aligned face, for ``affine_grid``, ``(B, 2, 3)``.
            penalize: 1 where the discriminators' gradients are penalized in this step, ``()``.
        """
        restored = self.generator(hybrid)
        side = max(16, _REGION * photo.shape[-1] // 256)
        loss = self._pixels * (restored - photo).abs().mean() + PERCEPTUAL * self._perceptual(restored, photo)
        if self._identity:
            loss = loss + self._identity * self._identity_distance(restored, hybrid, aligned)
        pairs = [(self.whole, restored, photo)]
        for place in range(regions.shape[1]):
            judge = self.eyes if place < 2 else self.mouth
            drawn, true = (cut(image, regions[:, place], side) for image in (restored, photo))
            pairs.append((judge, drawn, true))
            loss = loss + STYLE * style_distance(judge, drawn, true)
        for number, (judge, drawn, true) in enumerate(pairs):
            weight = 1.0 if number else ADVERSARIAL
            loss = loss + weight * functional.softplus(-constant(judge, drawn)[0]).mean()
            loss = (
                loss
                + functional.softplus(-judge(true)[0]).mean()
                + functional.softplus(judge(drawn.detach())[0]).mean()
            )
            if bool(penalize > 0):
                loss = loss + R1_WEIGHT / 2 / R1_SHARE * r1_penalty(judge, true)
        return loss

    def _perceptual(self, restored: Tensor, photo: Tensor) -> Tensor:
        features = self._frozen[0].to(photo.device)
        # The features have strides; images that are always in the same place would get a grid.
        left, top = (int(n) for n in torch.randint(0, _SHIFT, (2,)))
        restored, photo = restored[..., top:, left:], photo[..., top:, left:]
        with torch.no_grad():
            goals = features(photo * 2 - 1)
        maps = zip(features(restored * 2 - 1), goals, strict=True)
        return torch.stack([(a - b).abs().mean() for a, b in maps]).sum()

    def _identity_distance(self, restored: Tensor, hybrid: Tensor, aligned: Tensor) -> Tensor:
        judge = self._frozen[1].to(restored.device)
        with torch.no_grad():
            goal = judge(cut(hybrid, aligned, JUDGE_SIZE).clamp(0, 1))
        return (1 - (judge(cut(restored, aligned, JUDGE_SIZE)) * goal).sum(1)).mean()


def constant(judge: Discriminator, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The judgment with constant weights: gradients reach the image only."""
    weights = {name: value.detach() for name, value in judge.named_parameters()}
    return functional_call(judge, weights, (image,))  # type: ignore[no-any-return]


def style_distance(judge: Discriminator, drawn: Tensor, true: Tensor) -> Tensor:
    """Mean |Gram psi(X'_roi) - Gram psi(X_roi)| over the features of a discriminator with constant weights."""
    with torch.no_grad():
        goals = [gram(feature) for feature in constant(judge, true)[1]]
    found = [gram(feature) for feature in constant(judge, drawn)[1]]
    return torch.stack([(a - b).abs().mean() for a, b in zip(found, goals, strict=True)]).mean()


def gram(features: Tensor) -> Tensor:
    """Gram matrices ``(B, C, C)`` of features ``(B, C, h, w)``, divided by C h w."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def cut(images: Tensor, transforms: Tensor, side: int) -> Tensor:
    """Squares ``(B, C, side, side)`` of images by transforms ``(B, 2, 3)`` for ``affine_grid``."""
    # Twice the resolution, then averages: each pixel of the image counts.
    size = [len(images), images.shape[1], 2 * side, 2 * side]
    grid = functional.affine_grid(transforms.to(images), size, align_corners=False)
    return functional.avg_pool2d(functional.grid_sample(images, grid, padding_mode="border", align_corners=False), 2)


def places_of(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Transforms for ``affine_grid`` of both eyes and the mouth ``(3, 2, 3)``, and of the recognizer's aligned face
    ``(2, 3)``.

    Args:
        points: 68 landmarks in pixels of the square ``(68, 2)``.
        size: side of the square in pixels.
    """
    centers = [points[36:42].mean(0), points[42:48].mean(0), points[48:60].mean(0)]
    iod = float(np.linalg.norm(centers[1] - centers[0]))
    regions = []
    for center, side in zip(centers, (_EYE, _EYE, _MOUTH), strict=True):
        share = side * iod / size
        x, y = 2 * center / size - 1
        regions.append([[share, 0.0, x], [0.0, share, y]])
    return np.array(regions, dtype=np.float32), _grid_transform(embedder_transform(points), JUDGE_SIZE, size)


def _grid_transform(transform: np.ndarray, inner: int, outer: int) -> np.ndarray:
    """From the normalized coordinates of a crop of ``inner`` px to those of the square of ``outer`` px, for the crop's
    transform ``(2, 3)`` from the square."""
    whole = np.concatenate([transform, [[0.0, 0.0, 1.0]]])
    from_normalized = np.array([[inner / 2, 0, inner / 2], [0, inner / 2, inner / 2], [0, 0, 1]])
    to_normalized = np.array([[2 / outer, 0, -1], [0, 2 / outer, -1], [0, 0, 1]])
    return (to_normalized @ np.linalg.inv(whole) @ from_normalized)[:2].astype(np.float32)


def draw(faces: Faces, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A batch: X, X_l, the regions, the aligned face, and whether gradients are penalized."""
    rows = torch.randint(len(faces), (recipe.batch,), generator=generator).tolist()
    square, drawn, face, drawn_face, points = faces.rows(rows)
    size = square.shape[-1]
    mirrored = torch.rand(recipe.batch, generator=generator) < recipe.flip
    flip = mirrored.view(-1, 1, 1, 1)
    square, drawn, face, drawn_face = (
        torch.where(flip, part.flip(-1), part) for part in (square, drawn, face, drawn_face)
    )
    landmarks = [
        np.stack([size - p[MIRROR, 0], p[MIRROR, 1]], 1) if turned else p
        for p, turned in zip(points.double().numpy(), mirrored.tolist(), strict=True)
    ]
    jitter = 1 + _JITTER * (2 * torch.rand(recipe.batch, 3, 1, 1, generator=generator) - 1)
    square, drawn = ((part * jitter).clamp(0, 1) for part in (square, drawn))
    hybrid = disturbed_hybrid(square, drawn, face, drawn_face, generator)
    places = [places_of(p, size) for p in landmarks]
    penalize = (torch.rand((), generator=generator) < R1_SHARE).float()
    regions, aligned = (torch.from_numpy(np.stack(part)) for part in zip(*places, strict=True))
    return square, hybrid, regions, aligned, penalize


def train(
    faces: Faces, generator: Generator, features: nn.Module, recipe: Recipe, run: Run, progress: Progress = silent
) -> bool:
    """Train a restorer from its beginning or from the saved state on; then it has its averaged weights.

    Returns:
        Whether the training is complete.

    Raises:
        InputError: a setting is unknown, or the state is damaged or of another training.
        KeyboardInterrupt: a signal stopped the training; its state was saved.
    """
    torch.manual_seed(recipe.seed)
    objective = Objective(generator, features, recipe.pixels, recipe.identity).train()
    halvings = tuple(round(share * recipe.steps) for share in HALVINGS)
    settings = Settings(recipe.steps, recipe.rate, 0, recipe.ema, recipe.precision, recipe.seed, halvings=halvings)
    subject = subject_of(faces.points.numpy(), recipe, generator.kind, generator.origin, type(features).__name__)
    return fit(objective, partial(draw, faces, recipe), settings, run, subject, "training a restorer", progress)
