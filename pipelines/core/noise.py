"""IDEudemon's identity protection (section 3.2), for any kind of code."""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 1.0
"""The paper clamps the codes of HeadNeRF to +-1."""


def perturb_codes(codes: Tensor, scale: float, seed: int, shared: bool, limit: float | None = LIMIT) -> Tensor:
    """``z' = clamp(z + n, -limit, limit)`` with ``n ~ N(0, scale^2)``.

    Args:
        codes: ``(N, D)``.
        shared: whether all rows are one person and get the same noise.
        limit: of the sum; None clamps nothing, for codes of unit variance.

    Returns:
        ``(N, D)``, on the device and in the dtype of ``codes``.
    """
    rows = 1 if shared else len(codes)
    noise = torch.randn(rows, codes.shape[1], generator=torch.Generator().manual_seed(seed))
    noisy = codes + scale * noise.to(codes)
    return noisy if limit is None else noisy.clamp(-limit, limit)
