"""Node that gives a person the same synthetic identity everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ...pipelines.identity.identity import Identity
from ..schema import schema
from ..sockets import BankSocket, IdentitySocket
from .common import CATEGORY, one_identity

if TYPE_CHECKING:
    from ...pipelines.identity.bank import Bank
    from .common import SocketIdentity


class MapToPseudonym(io.ComfyNode):
    HELP = """
    The key is 32 random bytes in ComfyUI's user folder, `faceveil/NAME.key`, with its ledger beside it. The ledger
    holds keyed hashes of quantized decisions and numbers, no vectors. Keep the key away from the ledger when you
    share one: who has both can test whether a face is in it. Lose the key, and the pseudonyms are gone. Photos that
    a recognizer would not take for one person get two.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_MapToPseudonym",
            search_aliases=["consistent identity", "pseudonymize"],
            display_name="Map to Pseudonym",
            category=CATEGORY,
            not_idempotent=True,
            description=(
                "Give a person the same new identity in every picture, file and day, under a key that only you hold."
            ),
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="From Embed Faces: averaged for one person, or one for each face of a group."
                ),
                io.String.Input(
                    "key",
                    default="default",
                    tooltip="Name of a key in ComfyUI's user folder; made when missing, never part of a workflow.",
                ),
                io.Int.Input(
                    "capacity",
                    default=1000,
                    min=2,
                    max=100_000,
                    tooltip="How many synthetic identities there are; keep it for a key.",
                ),
                BankSocket.Input(
                    "bank", optional=True, tooltip="Give these people out instead of drawn ones; keep it for a key."
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    display_name="identity", tooltip="The person's synthetic identity, for Veil Faces."
                ),
                io.Int.Output(
                    display_name="number",
                    is_output_list=True,
                    tooltip="Of the synthetic identity; different people have different ones.",
                ),
            ],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, key: str, capacity: int, bank: Bank | None = None) -> io.NodeOutput:
        import folder_paths

        from ...pipelines.identity.pseudonym import Pseudonyms

        if not key.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"the key name {key!r} may hold letters, digits, - and _ only")
        pseudonyms = Pseudonyms.open(Path(folder_paths.get_user_directory()) / "faceveil", key, capacity, bank)
        given = one_identity(identity)
        found = [pseudonyms.assign(given[i]) for i in range(len(given))]
        return io.NodeOutput(
            Identity(np.concatenate([shown.vectors for _, shown in found]), found[0][1].space),
            [number for number, _ in found],
        )


NODES = [MapToPseudonym]
