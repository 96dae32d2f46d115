"""What the identity nodes share: the value of the identity socket."""

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
    """The embeddings that an identity socket brings.

    Raises:
        InputError: it brings what a method rendered, which is no embedding.
    """
    if isinstance(value, Identity):
        return value
    raise InputError(
        "this identity is what Veil Faces rendered, not an embedding; take one from Embed Faces or Sample Identity"
    )


def only_identity(value: SocketIdentity) -> Identity | MethodIdentity:
    """The one identity that an identity socket brings, of either kind.

    Raises:
        InputError: there is none, or there are several.
    """
    if not isinstance(value, tuple):
        return value
    kept = [identity for identity in value if identity is not None]
    if len(kept) != 1:
        raise InputError(
            f"Veil Faces rendered {len(kept) or 'no'} identities here; select one face and save its identity"
        )
    return kept[0]
