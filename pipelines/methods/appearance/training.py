"""Train the appearance model from a folder of portraits: ``faceveil train appearance --images DIR``.

Steps: detect landmarks and compute embeddings; fit a 3D shape model to the landmarks; compute the reflectance detail of
each face in canonical face space; compute a balanced PCA per region; fit the regression on attributes; fit the
embedding Jacobian, which guides the search, to renderings of random identities. The model stores no image.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ...core.errors import InputError
from ...core.files import write_whole
from ...core.progress import Progress, silent
from ...geometry.shape_model import ShapeModel, learn_shape_model
from ...imaging.formats import find_images
from ...training.labels import LABELS, balance, read_labels
from ...training.loop import subject_of
from ...training.parts import Parts
from ...training.portraits import Portrait, read_pixels, read_portrait
from . import packing
from .canonical import REGIONS, CanonicalSpace, Pose2D, mirrored
from .halves import Packer
from .jacobian import GUIDES, EmbeddingJacobian
from .jacobian_training import JacobianSamples, learn_jacobian, render_samples
from .network import FORMAT, PATTERN_COMPONENTS, TRAITS, AttributeSpace, model_of
from .packing import PackedFaces
from .people import People
from .plainness import Plainness
from .shading import MEASURES, Decomposer, Measures, measure

log = logging.getLogger(__name__)

COMPONENTS = {"eyes": 280, "nose": 160, "mouth": 280, "base": 214}
SHAPE_COMPONENTS = 40
RESIDUALS = 80
GLASSES_LIMIT, BANGS_LIMIT, HARSHNESS_LIMIT, YAW_LIMIT = 26.0, 1.0, 1.0, 22.0
"""Faces with larger measures, or a larger yaw in degrees, are left out: light would become part of the texture. Half of
the faces with glasses pass; at a stricter limit old people's wrinkles do not."""
BALANCE = 0.7
"""Weight of a face = (size of its group) ** -BALANCE. 0 weights all faces equally, 1 weights all groups equally."""
PERSON_GLASSES_LIMIT = 20.0
"""Stricter limit for the faces whose codes are stored as people."""
MIN_FACES = 400
"""Minimum number of images, and of faces without glasses and bangs."""
FACES_A_PART = 100
"""Faces after which the work is saved."""
JACOBIAN_FACES, JACOBIAN_JOBS = 440, 16
"""Number of faces with renderings for the embedding Jacobian, and number of parallel jobs."""
MIN_LABELED, LABEL_RIDGE = 40, 1.0
"""Portraits with a known label that its regression needs, and the weight of its ridge."""
MAX_MODE = 1.0
"""Maximum landmark displacement of a shape mode in IOD. A larger one means that the estimate diverged."""


def train(images: Path, output: Path, workers: int | None = None, progress: Progress = silent) -> dict[str, Any]:
    """Train and write a model.

    Args:
        images: folder of portraits, one person each; ``training.labels`` says how sex, age and group are given.
        output: safetensors file to write.
        workers: number of processes; the number of cores when omitted.

    Returns:
        Statistics for the model card: counts and explained variances.

    Raises:
        InputError: there are fewer than 400 usable faces, or too few different faces and head poses, or the state
            beside ``output`` belongs to another training.
    """
    paths = find_images(images)
    if len(paths) < MIN_FACES:
        raise InputError(
            f"{images} contains {len(paths)} images; an appearance model needs at least {MIN_FACES} different faces"
        )
    workers = workers or os.cpu_count() or 1
    parts = Parts(output.with_suffix(".state"), subject_of(np.empty(0), _named(paths, images)))
    jobs = [(paths[i : i + FACES_A_PART],) for i in range(0, len(paths), FACES_A_PART)]
    found = parts.run("faces", _read_portraits, jobs, packing.PORTRAITS, workers, progress, "finding faces")
    portraits = [portrait for part in found for portrait in part]
    tensors, metadata, facts = learn(portraits, parts, workers, progress)
    chosen = _sample_portraits(portraits, JACOBIAN_FACES)
    rendering = [(tensors, metadata, chosen[i::JACOBIAN_JOBS], i) for i in range(min(JACOBIAN_JOBS, len(chosen)))]
    what = "fitting the embedding Jacobians"
    samples = parts.run("samples", _render_samples, rendering, packing.SAMPLES, workers, progress, what)
    joined = JacobianSamples.joined(samples)
    for guide in GUIDES:
        tensors |= learn_jacobian(joined, guide).tensors(guide)
    write_whole(output, save({k: v.contiguous() for k, v in tensors.items()}, metadata))
    parts.remove()
    return {"images": len(paths), **facts}


def _named(paths: Sequence[Path], folder: Path) -> list[tuple[str, int]]:
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def _read_portraits(paths: Sequence[Path]) -> list[Portrait]:
    return [portrait for portrait in map(read_portrait, paths) if portrait is not None]


def learn(
    portraits: list[Portrait], parts: Parts, workers: int, progress: Progress = silent
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """Fit all parts of the model except the embedding Jacobian, which stays zero.

    Returns:
        Tensors, metadata and statistics.

    Raises:
        InputError: there are too few usable faces, or too few different faces and head poses.
    """
    shapes_2d = np.stack([Pose2D.of(p.points).to_canonical(p.points) for p in portraits])
    labels = read_labels([p.path for p in portraits])
    weights = balance(labels, BALANCE)
    both = np.concatenate([shapes_2d, mirrored(shapes_2d)])
    mean = np.average(both, axis=0, weights=np.tile(weights, 2))
    canonical = CanonicalSpace((mean + mirrored(mean)) / 2)
    progress(0, 1, "learning the 3D shape model")
    shapes, shape_codes = learn_shape_model(both, np.tile(weights, 2), SHAPE_COMPONENTS)
    if not np.abs(shapes.modes).max() < MAX_MODE:
        raise InputError(
            "the portraits show too few different faces and head poses to learn a 3D shape model; add more portraits"
        )
    count = -(-len(portraits) // FACES_A_PART)
    jobs = [(canonical.mean, portraits[i::count]) for i in range(count)]
    what = "separating shading and detail"
    features = parts.run("features", _features, jobs, packing.FEATURES, workers, progress, what)
    packed = _merge(features, len(portraits), count)
    keep = np.flatnonzero(
        [abs(shapes.fit(s).yaw) < YAW_LIMIT and _is_plain(p) for s, p in zip(shapes_2d, packed.plainness, strict=True)]
    )
    if len(keep) < MIN_FACES:
        raise InputError(
            f"only {len(keep)} of {len(portraits)} faces are frontal and in soft light, without glasses and bangs; an"
            f" appearance model needs at least {MIN_FACES}"
        )
    # All portraits tell about sex, age and group, also those whose texture is hidden.
    embeddings = np.stack([p.embedding for p in portraits])
    learner = _Learner(
        canonical,
        shapes,
        shape_codes[np.concatenate([keep, keep + len(portraits)])],
        labels[keep],
        weights[keep],
        embeddings[keep],
        _regress_labels(embeddings, labels, weights),
        [packed.measures[i] for i in keep],
        [packed.plainness[i] for i in keep],
        {n: v[keep] for n, v in packed.halves.items()},
    )
    tensors, facts = learner.learn(progress)
    return (
        tensors,
        {"format": FORMAT, "shape_noise": json.dumps(shapes.noise)},
        {"faces": len(portraits), "used": len(keep), **facts},
    )


def _is_plain(face: Plainness) -> bool:
    """Whether a face has no glasses and no bangs, and soft light."""
    return face.glasses < GLASSES_LIMIT and face.bangs < BANGS_LIMIT and face.harshness < HARSHNESS_LIMIT


def _features(mean: np.ndarray, portraits: Sequence[Portrait]) -> PackedFaces:
    canonical = CanonicalSpace(mean)
    decomposer, packer = Decomposer(canonical), Packer(canonical)
    halves: dict[str, list[np.ndarray]] = {n: [] for n in REGIONS}
    measures, plainness = [], []
    for portrait in portraits:
        decomposition = decomposer.decompose(canonical.unwrap(read_pixels(portrait.path), portrait.points))
        shape = Pose2D.of(portrait.points).to_canonical(portrait.points)
        measures.append(measure(decomposer.zones, decomposition, shape))
        plainness.append(Plainness.of(decomposer, decomposition))
        for name, pair in packer.pack(decomposition.detail * decomposition.visible).items():
            halves[name].append(torch.stack(pair).half().numpy())
    return PackedFaces({n: np.stack(v) for n, v in halves.items()}, measures, plainness)


def _merge(parts: list[PackedFaces], count: int, split: int) -> PackedFaces:
    """Concatenate the parts and restore the order before the split ``portraits[i::split]``."""
    order = np.argsort(np.concatenate([np.arange(count)[i::split] for i in range(split)]))
    measures = [m for part in parts for m in part.measures]
    plainness = [p for part in parts for p in part.plainness]
    return PackedFaces(
        {n: np.concatenate([p.halves[n] for p in parts])[order] for n in REGIONS},
        [measures[i] for i in order],
        [plainness[i] for i in order],
    )


@dataclass
class _Learner:
    canonical: CanonicalSpace
    shapes: ShapeModel
    shape_codes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    embeddings: np.ndarray
    regression: np.ndarray
    measures: list[Measures]
    plainness: list[Plainness]
    halves: dict[str, np.ndarray]

    def learn(self, progress: Progress) -> tuple[dict[str, Tensor], dict[str, Any]]:
        attributes = self._attribute_space()
        design = self._design(attributes)
        tensors: dict[str, Tensor] = {
            "frame.mean": torch.from_numpy(self.canonical.mean),
            "shape.mean": torch.from_numpy(self.shapes.mean),
            "shape.modes": torch.from_numpy(self.shapes.modes).half(),
            **{f"attributes.{k}": torch.from_numpy(v).float() for k, v in vars(attributes).items()},
        }
        facts: dict[str, Any] = {"explained": {}, "regressed": {}}
        codes, low_high, packer = {}, [], Packer(self.canonical)
        for step, name in enumerate(REGIONS):
            progress(step, len(REGIONS), f"learning the {name}")
            half = torch.from_numpy(self.halves.pop(name)).float()
            basis, codes[name], explained = _region_pca(half, torch.from_numpy(self.weights).float(), COMPONENTS[name])
            facts["explained"][name] = round(explained, 4)
            low_high.append(_luma_range(half, name, packer))
            tensors |= {f"{name}.{k}": v for k, v in basis.items()}
        signs = {n: tensors[f"{n}.sign"].numpy().astype(np.float32) for n in REGIONS}
        both = {n: np.concatenate([codes[n], codes[n] * signs[n]]) for n in REGIONS}
        weights = np.tile(self.weights, 2)
        people = {}
        for name in REGIONS:
            part, scores, share = _condition(both[name], self.shape_codes, design, weights)
            tensors |= {f"{name}.{k}": v for k, v in part.items()}
            people[name] = scores[: len(self.labels)]
            facts["regressed"][name] = round(share, 4)
        plain = [i for i, p in enumerate(self.plainness) if p.glasses < PERSON_GLASSES_LIMIT]
        tensors |= People.of({n: scores[plain] for n, scores in people.items()}, design[plain][:, TRAITS]).tensors()
        facts["people"] = len(plain)
        for guide, size in GUIDES.items():
            tensors |= EmbeddingJacobian.zeros({n: c.shape[1] for n, c in both.items()}, size).tensors(guide)
        tensors["limits"] = _combine_ranges(low_high)
        return tensors, facts

    def _attribute_space(self) -> AttributeSpace:
        pattern = np.stack([m.pattern for m in self.measures])
        n = len(pattern)
        pattern = np.concatenate([pattern, pattern.reshape(n, 3, 16, 16)[..., ::-1].reshape(n, -1)])
        mean = pattern.mean(0)
        _, _, vt = np.linalg.svd(pattern[::3] - mean, full_matrices=False)
        size = len(LABELS) + PATTERN_COMPONENTS + len(self.measures[0].values)
        rough = AttributeSpace(self.regression, mean, vt[:PATTERN_COMPONENTS].T, np.zeros(size), np.ones(size))
        raw = self._raw(rough)
        return AttributeSpace(self.regression, mean, vt[:PATTERN_COMPONENTS].T, raw.mean(0), raw.std(0) + 1e-6)

    def _raw(self, space: AttributeSpace) -> np.ndarray:
        # The regression fills in the labels that are unknown.
        predicted = np.concatenate([self.embeddings, np.ones((len(self.labels), 1))], 1) @ space.labels
        labels = np.where(np.isnan(self.labels), predicted, self.labels)
        rows = [space.raw(label, m) for label, m in zip(labels, self.measures, strict=True)]
        rows += [space.raw(label, _mirror(m)) for label, m in zip(labels, self.measures, strict=True)]
        return np.stack(rows)

    def _design(self, space: AttributeSpace) -> np.ndarray:
        standard = (self._raw(space) - space.mean) / space.std
        return np.concatenate([standard, np.ones((len(standard), 1))], 1)


def _regress_labels(embeddings: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ridge regression ``(D + 1, 6)`` from embeddings ``(N, D)`` with a trailing 1 to the labels ``(N, 6)``."""
    extended = np.concatenate([embeddings, np.ones((len(embeddings), 1))], 1)
    return np.stack([_regress(extended, column, weights) for column in labels.T], 1)


def _regress(embeddings: np.ndarray, label: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Regress one label ``(N,)``, NaN where unknown, on embeddings ``(N, D + 1)``; zeros where too few are known."""
    known = ~np.isnan(label)
    if known.sum() < MIN_LABELED:
        return np.zeros(embeddings.shape[1])
    x, weighted = embeddings[known], embeddings[known] * weights[known, None]
    return np.linalg.solve(weighted.T @ x + LABEL_RIDGE * np.eye(x.shape[1]), weighted.T @ label[known])


def _region_pca(half: Tensor, weights: Tensor, components: int) -> tuple[dict[str, Tensor], np.ndarray, float]:
    """Compute a weighted PCA of both halves ``(N, 2, P)``.

    Returns:
        Tensors with int8 bases, codes ``(N, K)``, and the share of explained variance.
    """
    torch.manual_seed(0)
    share = (weights / weights.sum())[:, None]
    mean = (half[:, 0] * share).sum(0)
    parts = [half[:, 0] - mean, half[:, 1]]
    root = (weights / weights.mean()).sqrt()[:, None]
    found = [torch.svd_lowrank(part * root, q=components + 20, niter=3) for part in parts]
    strength = torch.cat([s for _, s, _ in found])
    sign = torch.cat([torch.full_like(found[0][1], 1.0), torch.full_like(found[1][1], -1.0)])
    order = strength.argsort(descending=True)[:components]
    basis = torch.cat([v for _, _, v in found], 1)[:, order]
    sign = sign[order]
    scale = basis.abs().quantile(0.9997, dim=0) / 127
    quantized = (basis / scale).round().clamp(-127, 127)
    basis = quantized * scale
    codes = torch.where(sign > 0, parts[0] @ basis, parts[1] @ basis)
    rest = sum(((part - (codes * (sign == s)) @ basis.T) ** 2).sum() for part, s in zip(parts, (1, -1), strict=True))
    explained = 1 - float(rest / sum((part**2).sum() for part in parts))
    tensors = {
        "mean": mean.half(),
        "basis": quantized.to(torch.int8),
        "scale": scale.half(),
        "sign": sign.to(torch.int8),
    }
    return tensors, codes.numpy(), explained


def _condition(
    codes: np.ndarray, shape_codes: np.ndarray, design: np.ndarray, weights: np.ndarray
) -> tuple[dict[str, Tensor], np.ndarray, float]:
    """Regress ``[texture, shape]`` on attributes and compute the principal directions of the residuals.

    Returns:
        Tensors; the residual codes ``z`` of all faces, ``(N, Z)``; and the share of variance that attributes explain.
    """
    joint = np.concatenate([codes, shape_codes], 1)
    weighted = design * weights[:, None]
    regress = np.linalg.solve(weighted.T @ design + 20 * np.eye(design.shape[1]), weighted.T @ joint)
    rest = joint - design @ regress
    k = codes.shape[1]
    # Give texture and shape equal weight, independent of their units.
    units = np.concatenate(
        [
            np.full(k, np.sqrt((codes**2).sum(1).mean())),
            np.full(joint.shape[1] - k, np.sqrt((shape_codes**2).sum(1).mean())),
        ]
    )
    normal = rest / units
    values, vectors = np.linalg.eigh((normal * weights[:, None]).T @ normal / weights.sum())
    order = np.argsort(-values)[:RESIDUALS]
    residual = vectors[:, order] * np.sqrt(values[order]) * units[:, None]
    scale = np.maximum(np.abs(residual).max(1) / 127, 1e-9)
    centered = (joint - joint.mean(0)) / units
    share = 1 - float((normal**2).sum() / (centered**2).sum())
    tensors = {
        "regress": torch.from_numpy(regress).half(),
        "residual": torch.from_numpy(np.round(residual / scale[:, None])).to(torch.int8),
        "residual_scale": torch.from_numpy(scale).float(),
    }
    return tensors, normal @ vectors[:, order] / np.sqrt(values[order]), share


def _luma_range(half: Tensor, name: str, packer: Packer) -> Tensor:
    """Compute the 1st and 98.5th percentile of a region's masked luma over faces and mirrored faces.

    Returns:
        ``(1, 2, 64, 64)``.
    """
    whole = []
    for row in half[:: max(1, len(half) // 400)]:
        image = packer.unpack({name: (row[0], row[1])}).mean(1, keepdim=True)
        whole.append(torch.nn.functional.interpolate(image, size=(64, 64), mode="area"))
    stack = torch.cat([*whole, *(w.flip(-1) for w in whole)])
    return torch.stack([stack.quantile(0.01, dim=0), stack.quantile(0.985, dim=0)], 1)


def _combine_ranges(ranges: list[Tensor]) -> Tensor:
    total = torch.stack(ranges).sum(0)
    low = -torch.nn.functional.max_pool2d(-total[:, :1], 3, 1, 1)
    return torch.cat([low, total[:, 1:]], 1).half()


def _mirror(m: Measures) -> Measures:
    values = m.values.copy()
    values[MEASURES.index("yaw")] *= -1
    return replace(m, values=values, pattern=m.pattern.reshape(3, 16, 16)[..., ::-1].ravel())


def _sample_portraits(portraits: list[Portrait], count: int) -> list[Portrait]:
    """Sample up to ``count`` portraits with balanced groups."""
    weights = balance(read_labels([p.path for p in portraits]), BALANCE)
    size = min(count, len(portraits))
    return [
        portraits[i]
        for i in np.random.default_rng(0).choice(len(portraits), size, replace=False, p=weights / weights.sum())
    ]


def _render_samples(
    tensors: dict[str, Tensor], metadata: dict[str, str], portraits: Sequence[Portrait], seed: int
) -> JacobianSamples:
    return render_samples(
        model_of(tensors, metadata), [(read_pixels(p.path), p.points, p.embedding) for p in portraits], seed
    )
