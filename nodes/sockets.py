"""Socket types of our own, defined once."""

from __future__ import annotations

from comfy_api.latest import io

FacesSocket = io.Custom("FACEVEIL_FACES")
"""``Faces``: the found faces of a batch."""
CropsSocket = io.Custom("FACEVEIL_CROPS")
"""A tuple of ``Place``: where cropped squares belong."""
IdentitySocket = io.Custom("FACEVEIL_IDENTITY")
"""An ``Identity`` (embeddings), or what Veil Faces rendered: a tuple with a ``MethodIdentity`` or None for each
face."""
RecognizerSocket = io.Custom("FACEVEIL_RECOGNIZER")
"""An ``FaceRecognizer``: turns faces into identities."""
BankSocket = io.Custom("FACEVEIL_BANK")
"""A ``Bank`` of synthetic people."""
MorphableSocket = io.Custom("FACEVEIL_MORPHABLE")
"""A ``MorphableModel``."""
CoefficientsSocket = io.Custom("FACEVEIL_COEFFICIENTS")
"""A ``Geometry``: coefficients of faces, their model, and where they lie in which pictures."""
ReferenceNetSocket = io.Custom("FACEVEIL_REFERENCENET")
"""The two ReferenceNets, as ``ModelPatcher``s."""
ReferenceSocket = io.Custom("FACEVEIL_REFERENCE")
"""A ``Reference``: pictures as the ReferenceNets see them."""

ROOT = "FaceVeil"
"""Category of all nodes."""
BUILT_IN = "built-in"
"""Choice of what comes with the package, among files."""
NONE = "none"
"""Choice of no file."""
MAX_SEED = 0xFFFFFFFFFFFFFFFF
