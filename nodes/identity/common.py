"""Code that the identity nodes share: the value of the identity socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ...pipelines.core.errors import InputError
from ...pipelines.identity.identity import Identity
from ..sockets import ROOT

if TYPE_CHECKING:
    from ...pipelines.methods.identities import MethodIdentity

    SocketIdentity: TypeAlias = Identity | MethodIdentity | tuple[MethodIdentity | None, ...]

CATEGORY = f"{ROOT}/Identity"


def one_identity(value: SocketIdentity) -> Identity:
    """Return the embeddings from an identity socket.

    Raises:
        InputError: the value is an identity that a method rendered, not an embedding.
    """
    if isinstance(value, Identity):
        return value
    raise InputError(
        "this identity is an output of Veil Faces, not an embedding; connect Embed Faces or Sample Identity"
    )


def only_identity(value: SocketIdentity) -> Identity | MethodIdentity:
    """Return the single identity from an identity socket: embeddings, or the identity of a method.

    Raises:
        InputError: a method rendered no identity, or more than one.
    """
    if not isinstance(value, tuple):
        return value
    kept = [identity for identity in value if identity is not None]
    if len(kept) != 1:
        raise InputError(
            f"Veil Faces rendered {len(kept) or 'no'} identities, but one is needed; select one face with Select Faces"
        )
    return kept[0]
