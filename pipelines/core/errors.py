"""Errors that a user reads: one sentence that names the thing and the remedy."""

from __future__ import annotations


class FaceVeilError(Exception):
    """Base of every error that is the user's to mend; its text is shown as it is."""


class InputError(FaceVeilError):
    """A file, picture, plan or parameter that cannot be used."""


class OutputError(FaceVeilError):
    """A result that cannot be written."""


class WeightsError(FaceVeilError):
    """A weights file that is missing, damaged or not what its card says."""


class PolicyStop(FaceVeilError):
    """The policy says ``stop``: nothing is handed on, because a face would not be protected."""
