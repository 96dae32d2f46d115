"""A method that paints the box of a face."""

from __future__ import annotations

import torch
from faceveil.pipelines.methods.base import Change
from faceveil.pipelines.methods.identities import MethodIdentity


class Paint:
    name = "dummy"

    def __init__(self, red=1.0):
        self.red = red

    def unsupported_reason(self, face):
        return None

    def prepare(self, view):
        return view

    def occlusion_reason(self, prepared):
        return None

    def sample_identity(self, prepared, seed, progress):
        return MethodIdentity(self.name, seed)

    def from_identity(self, prepared, identity, seed, progress):
        return MethodIdentity(self.name, seed, identity)

    def render(self, view, identity, strength, progress):
        x1, y1, x2, y2 = (int(v) for v in view.face.box)
        patch = view.image[..., y1:y2, x1:x2] * 0
        patch[:, 0] = self.red
        return Change(patch, (x1, y1), torch.ones_like(patch[:, :1]), view.face.points)
