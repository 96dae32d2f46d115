"""Thin-plate splines (Bookstein 1989) as linear operators: one solve for many sets of values."""

from __future__ import annotations

import torch
from torch import Tensor


def thin_plate(source: Tensor, queries: Tensor, stiffness: float = 1e-3) -> Tensor:
    """Compute the linear operator that interpolates values at ``source`` points to ``queries``.

    Args:
        source: ``(N, 2)``, in units in which neighboring points are 0.1 to 1 apart.
        queries: ``(M, 2)`` in the same units.
        stiffness: regularization; 0 interpolates exactly, larger values smooth.

    Returns:
        ``(M, N)``, float64; ``operator @ values`` interpolates ``values`` ``(N, k)``.
    """
    source, queries = source.double(), queries.double()
    return torch.linalg.solve(_system(source, stiffness), _basis(queries, source).T).T[:, : len(source)]


def interpolated(source: Tensor, values: Tensor, queries: Tensor, stiffness: float = 1e-3) -> Tensor:
    """``thin_plate(source, queries, stiffness) @ values``, ``(M, k)``, for one set of values ``(N, k)``: faster."""
    source, queries, values = source.double(), queries.double(), values.double()
    padded = torch.cat([values, values.new_zeros(3, values.shape[1])])
    return _basis(queries, source) @ torch.linalg.solve(_system(source, stiffness), padded)


def _system(source: Tensor, stiffness: float) -> Tensor:
    """The equations ``(N + 3, N + 3)`` of the weights: the values at the source points, and no affine bending."""
    n = len(source)
    system = torch.zeros(n + 3, n + 3, dtype=torch.float64)
    system[:n, :n] = _kernel(source, source) + stiffness * torch.eye(n, dtype=torch.float64)
    system[:n, n:] = torch.cat([torch.ones(n, 1, dtype=torch.float64), source], 1)
    system[n:, :n] = system[:n, n:].T
    return system


def _basis(queries: Tensor, source: Tensor) -> Tensor:
    """What the weights are multiplied with at the queries, ``(M, N + 3)``."""
    return torch.cat([_kernel(queries, source), torch.ones(len(queries), 1, dtype=torch.float64), queries], 1)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    x, y = (a[:, None, axis] - b[None, :, axis] for axis in (0, 1))
    squared = x * x + y * y
    return 0.5 * squared * torch.log(squared.clamp(min=1e-12))
