"""Errors with a message for the user: one sentence that names the cause and the remedy."""

from __future__ import annotations

MAX_TEXT = 200
"""Characters of an unforeseen error's text that are repeated."""


class FaceVeilError(Exception):
    """Base class of all errors that the user can fix; the message is printed unchanged."""


class InputError(FaceVeilError):
    """A file, image, plan or parameter cannot be used."""


class WorkerLost(InputError):
    """A process or a machine that did a part of the work is gone; what it had not finished can be done again."""


class OutputError(FaceVeilError):
    """A result cannot be written."""


class WeightsError(FaceVeilError):
    """A weights file is missing, damaged, or different from the catalog's description."""


class PolicyStop(FaceVeilError):
    """The policy is ``stop`` and a face would not be protected, so no image is returned."""


class CannotReplace(FaceVeilError):
    """A method cannot replace this face; the policy acts, and the other faces are treated."""


class UnexpectedError(FaceVeilError):
    """An unforeseen error, in one sentence."""


def unexpected(error: BaseException) -> UnexpectedError:
    """Put any error into one sentence."""
    text = " ".join(str(error).split())[:MAX_TEXT]
    detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return UnexpectedError(f"an unexpected error occurred ({detail}); please report it with the output of --debug")
