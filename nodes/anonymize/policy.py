"""Policy widgets and outputs that the anonymization nodes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ...pipelines.jobs.policy import ACTIONS, Policy
from ..convert import mask_to_socket, pixels_to_image

if TYPE_CHECKING:
    from ...pipelines.jobs.settings import Result

_TIP = "redact removes it, stop ends the run with an error, pass leaves it unprotected and reports it."


def unsafe_face_input() -> Any:
    """Create the input for the action on faces that cannot be replaced safely."""
    return io.Combo.Input(
        "unsafe_face",
        options=list(ACTIONS),
        default="redact",
        tooltip=f"Action for a face that is too small, is rotated too far, or still matches the original: {_TIP}",
    )


def no_face_input() -> Any:
    """Create the input for the action on images without a detected face."""
    return io.Combo.Input(
        "no_face",
        options=list(ACTIONS),
        default="redact",
        tooltip=(
            "Action for an image without a detected face: redact fills the whole image, stop ends the run with an"
            " error, pass keeps the image and reports it."
        ),
    )


def policy_of(unsafe_face: str, no_face: str) -> Policy:
    """Convert the values of the two inputs to a policy."""
    return Policy(no_face=no_face, out_of_range=unsafe_face, failed=unsafe_face, still_similar=unsafe_face)  # type: ignore[arg-type]  # Policy checks the values


def face_outputs() -> list[Any]:
    """Create the outputs of a node that replaces faces."""
    from ..sockets import FacesSocket, IdentitySocket

    return [
        io.Image.Output(display_name="image", tooltip="The same images with new faces."),
        io.Mask.Output(display_name="mask", tooltip="Pixels that may have changed. All other pixels are unchanged."),
        FacesSocket.Output(display_name="faces", tooltip="The detected faces, before replacement."),
        IdentitySocket.Output(
            display_name="identity",
            tooltip="The identity of each replaced face. Reuse it on other images of the same people.",
        ),
        io.String.Output(
            display_name="report",
            tooltip="The outcome for each face, as JSON. It contains no image and no embedding.",
        ),
        summary_output(),
    ]


def summary_output() -> Any:
    """Create the output that says in words what happened; the node shows the same text."""
    return io.String.Output(display_name="summary", tooltip="What happened to each face, in words.")


def output_of(result: Result) -> io.NodeOutput:
    """Convert a result to the values of ``face_outputs``."""
    return io.NodeOutput(
        pixels_to_image(result.pixels, result.alpha),
        mask_to_socket(result.mask),
        result.faces,
        result.identities,
        result.report.to_json(),
        result.report.text(),
        ui=ui.PreviewText(result.report.text()),
    )
