"""Node that gives a person the same synthetic identity in all images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ...pipelines.identity.identity import Identity
from ..inputs import is_key_name, no_key_name
from ..schema import schema
from ..sockets import BankSocket, IdentitySocket
from .common import CATEGORY, one_identity

if TYPE_CHECKING:
    from ...pipelines.identity.bank import Bank
    from .common import SocketIdentity


class MapToPseudonym(io.ComfyNode):
    HELP = """
    Key and ledger are files in ComfyUI's user folder: `faceveil/NAME.key` (32 random bytes) and
    `faceveil/NAME.ledger.json` (encrypted codes and numbers). Back up both: if either is lost, so are the
    pseudonyms. If you share one of the files, keep the other secret: both together tell whether a face is in the
    ledger.

    If two photos of a person differ too much for the recognizer, the person gets a second pseudonym.

    Without *ledger* the key and the face alone decide. Nothing but the key can then be lost, but about half of a
    person's photos get another pseudonym, and strangers can share one.
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
                "Give a person the same synthetic identity in all images and workflows, with a secret key on your"
                " computer."
            ),
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="From Embed Faces, one per person. For a group, turn average off."
                ),
                io.String.Input(
                    "key",
                    default="default",
                    tooltip="Name of the key. It is created if missing and never stored in a workflow.",
                ),
                io.Int.Input(
                    "capacity",
                    default=1000,
                    min=2,
                    max=100_000,
                    tooltip="Number of synthetic identities without a bank. Keep it for an existing key.",
                ),
                io.Boolean.Input(
                    "ledger",
                    default=True,
                    tooltip=(
                        "Remember people in a file. Without it, a person often has another pseudonym in other photos."
                    ),
                ),
                BankSocket.Input(
                    "bank",
                    optional=True,
                    tooltip="Assign people of this bank instead of sampled identities. Keep it for an existing key.",
                ),
                IdentitySocket.Input(
                    "second",
                    optional=True,
                    tooltip=(
                        "The same faces from another Embed Faces with the recognizer faceveil: people whom it tells"
                        " apart keep different pseudonyms."
                    ),
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    display_name="identity", tooltip="The synthetic identity of each person, for Veil Faces."
                ),
                io.Int.Output(
                    display_name="number",
                    is_output_list=True,
                    tooltip="Number of the synthetic identity. Different people have different numbers.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, key: str | None = None) -> bool | str:
        # None where the widget is connected to another node: the name is then checked in the run.
        return True if key is None or is_key_name(key) else no_key_name(key)

    @classmethod
    def execute(
        cls,
        identity: SocketIdentity,
        key: str,
        capacity: int,
        ledger: bool,
        bank: Bank | None = None,
        second: SocketIdentity | None = None,
    ) -> io.NodeOutput:
        import folder_paths

        from ...pipelines.identity.pseudonym import Pseudonyms

        if not is_key_name(key):
            raise InputError(no_key_name(key))
        folder = Path(folder_paths.get_user_directory()) / "faceveil"
        pseudonyms = Pseudonyms.open(folder, key, capacity, bank, ledger)
        given = one_identity(identity)
        others = None if second is None else one_identity(second)
        if others is not None and len(others) != len(given):
            raise InputError(
                f"identity has {len(given)} faces and second {len(others)}; embed the same faces with both recognizers"
            )
        found = [pseudonyms.assign(given[i], None if others is None else others[i]) for i in range(len(given))]
        return io.NodeOutput(
            Identity(np.concatenate([assigned.vectors for _, assigned in found]), found[0][1].space),
            [number for number, _ in found],
        )


NODES = [MapToPseudonym]
