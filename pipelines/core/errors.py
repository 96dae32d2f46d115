"""Errors with a message for the user: one sentence that names the cause and the remedy."""

from __future__ import annotations


class FaceVeilError(Exception):
    """Base class of all errors that the user can fix; the message is printed unchanged."""


class InputError(FaceVeilError):
    """A file, image, plan or parameter cannot be used."""


class OutputError(FaceVeilError):
    """A result cannot be written."""


class WeightsError(FaceVeilError):
    """A weights file is missing, damaged, or different from the catalog's description."""


class PolicyStop(FaceVeilError):
    """The policy is ``stop`` and a face would not be protected, so no image is returned."""
