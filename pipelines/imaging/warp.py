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
    n = source.shape[0]
    ones = torch.ones(n, 1, dtype=torch.float64)
    system = torch.zeros(n + 3, n + 3, dtype=torch.float64)
    system[:n, :n] = _kernel(source, source) + stiffness * torch.eye(n, dtype=torch.float64)
    system[:n, n:] = torch.cat([ones, source], 1)
    system[n:, :n] = system[:n, n:].T
    basis = torch.cat([_kernel(queries, source), torch.ones(queries.shape[0], 1, dtype=torch.float64), queries], 1)
    return torch.linalg.solve(system, basis.T).T[:, :n]


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return 0.5 * squared * torch.log(squared.clamp(min=1e-12))
