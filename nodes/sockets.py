"""Socket types and constants that all nodes share."""

from __future__ import annotations

from comfy_api.latest import io

FacesSocket = io.Custom("FACEVEIL_FACES")
"""``Faces``: the detected faces of a batch."""
BoxesSocket = io.Custom("BOUNDING_BOX")
"""Core's boxes: a list for each image of dicts with ``x``, ``y``, ``width`` and ``height`` in pixels."""
CropsSocket = io.Custom("FACEVEIL_CROPS")
"""A tuple of ``Place``: the positions of cropped squares in their images."""
IdentitySocket = io.Custom("FACEVEIL_IDENTITY")
"""An ``Identity`` (embeddings), or the identities that Veil Faces rendered: a tuple with a ``MethodIdentity`` or None
per face."""
RecognizerSocket = io.Custom("FACEVEIL_RECOGNIZER")
"""A ``FaceRecognizer``: computes embeddings of faces."""
BankSocket = io.Custom("FACEVEIL_BANK")
"""A ``Bank`` of synthetic people."""
MorphableSocket = io.Custom("FACEVEIL_MORPHABLE")
"""A ``MorphableModel``."""
CoefficientsSocket = io.Custom("FACEVEIL_COEFFICIENTS")
"""A ``Geometry``: coefficients of faces, their morphable model, and their positions in the images."""
ReferenceNetSocket = io.Custom("FACEVEIL_REFERENCENET")
"""The two ReferenceNets, as ``ModelPatcher``s."""
ReferenceSocket = io.Custom("FACEVEIL_REFERENCE")
"""A ``Reference``: images encoded for the ReferenceNets, with the states of the networks."""

ROOT = "FaceVeil"
"""Category of all nodes."""
BUILT_IN = "built-in"
"""Combo option for the model that comes with the package."""
NONE = "none"
"""Combo option for no file."""
