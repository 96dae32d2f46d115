"""What the anonymizing nodes share: the policy's widgets, and what they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ...pipelines.jobs.policy import ACTIONS, Policy
from ..convert import mask_to_socket, pixels_to_image

if TYPE_CHECKING:
    from ...pipelines.jobs.settings import Result

_TIP = (
    "redact removes it, stop ends the run with a message, pass lets it through unprotected and says so in the report."
)


def unsafe_face_input() -> Any:
    """What happens to a face that cannot be replaced safely."""
    return io.Combo.Input(
        "unsafe_face",
        options=list(ACTIONS),
        default="redact",
        tooltip=f"A face that is too small, rotated too far, or still recognized afterwards: {_TIP}",
    )


def no_face_input() -> Any:
    """What happens to an image in which no face is found."""
    return io.Combo.Input(
        "no_face",
        options=list(ACTIONS),
        default="redact",
        tooltip=f"An image in which no face is found: {_TIP} redact fills the whole image.",
    )


def policy_of(unsafe_face: str, no_face: str) -> Policy:
    """The policy that the two widgets describe."""
    return Policy(no_face=no_face, out_of_range=unsafe_face, failed=unsafe_face, still_similar=unsafe_face)  # type: ignore[arg-type]  # Policy checks them


def face_outputs() -> list[Any]:
    """Outputs of a node that replaces faces."""
    from ..sockets import FacesSocket, IdentitySocket

    return [
        io.Image.Output(display_name="image", tooltip="The same images with new faces."),
        io.Mask.Output(display_name="mask", tooltip="Where pixels may have changed; all others are untouched."),
        FacesSocket.Output(display_name="faces", tooltip="The faces as they were detected."),
        IdentitySocket.Output(
            display_name="identity",
            tooltip="The identity of each replaced face, to use again on other images of the same people.",
        ),
        io.String.Output(
            display_name="report",
            tooltip="What happened to each face, as JSON. It contains no image and no embedding.",
        ),
    ]


def output_of(result: Result) -> io.NodeOutput:
    """Values of ``face_outputs``."""
    return io.NodeOutput(
        pixels_to_image(result.pixels),
        mask_to_socket(result.mask),
        result.faces,
        result.identities,
        result.report.to_json(),
    )
