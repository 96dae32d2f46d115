"""Nodes for banks of synthetic people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ..convert import bar, pixels_to_image
from ..files import OWN, model_stamp, names, path_of
from ..schema import schema
from ..sockets import NONE, BankSocket, IdentitySocket, RecognizerSocket
from .common import CATEGORY, one_identity

if TYPE_CHECKING:
    from ...pipelines.identity.bank import Bank
    from ...pipelines.recognition.base import FaceRecognizer
    from .common import SocketIdentity

_BANK = "bank.safetensors"


class BuildSyntheticBank(io.ComfyNode):
    HELP = """
    Use images from a face generator, with one synthetic person each. The node detects and embeds each face and stores
    it as a 256 px portrait without the file name. Duplicates, which are closer than half the recognizer's threshold to
    another face, are left out.

    If a bank with this *name* exists, the node loads it and ignores *folder*. To build a new bank, choose another name
    or delete the folder of the bank.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_BuildSyntheticBank",
            search_aliases=["identity bank"],
            display_name="Build Synthetic Bank",
            category=CATEGORY,
            is_output_node=True,
            description=(
                "Build a bank of synthetic people from a folder of portraits. Other nodes take new identities from it."
            ),
            inputs=[
                io.String.Input(
                    "folder",
                    default="synthetic_faces",
                    tooltip="Folder in ComfyUI's input folder, with one portrait per synthetic person.",
                ),
                io.String.Input(
                    "name",
                    default="people",
                    tooltip="Name of the bank in models/faceveil/banks. An existing bank is loaded unchanged.",
                ),
                RecognizerSocket.Input(
                    "recognizer", optional=True, tooltip="From Load Recognizer. Without it, dlib's recognizer."
                ),
            ],
            outputs=[
                BankSocket.Output(
                    display_name="bank",
                    tooltip="For Map to Pseudonym, Nearest Synthetic Person and Swap with Identity.",
                ),
                io.Int.Output(display_name="people", tooltip="Number of people in the bank, without duplicates."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str = "", **_: object) -> str:
        return model_stamp(OWN, f"banks/{name}/{_BANK}")

    @classmethod
    def execute(cls, folder: str, name: str, recognizer: FaceRecognizer | None = None) -> io.NodeOutput:
        import folder_paths

        from ...pipelines.identity.bank import load_bank
        from ...pipelines.jobs.portraits import bank_from_folder
        from ...pipelines.recognition.catalog import open_recognizer

        if not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"the bank name {name!r} may contain only letters, digits, - and _")
        place = Path(folder_paths.get_folder_paths("faceveil")[0]) / "banks" / name
        if (place / _BANK).is_file():
            bank = load_bank(place)
        else:
            root = Path(folder_paths.get_input_directory()).resolve()
            portraits = (root / folder).resolve()
            if not portraits.is_relative_to(root) or not portraits.is_dir():
                raise InputError(
                    f"{folder} is not a folder in ComfyUI's input folder; put the portraits into such a folder"
                )
            # Worker processes would start ComfyUI again.
            bank = bank_from_folder(portraits, place, recognizer or open_recognizer(), workers=1, progress=bar())
        return io.NodeOutput(bank, len(bank))


class LoadSyntheticBank(io.ComfyNode):
    HELP = """
    Use the bank only with identities from the recognizer that it was built with. Reload the page to see a new bank.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadSyntheticBank",
            search_aliases=["identity bank"],
            display_name="Load Synthetic Bank",
            category=CATEGORY,
            description="Load a bank of synthetic people from Build Synthetic Bank.",
            inputs=[
                io.Combo.Input("bank", options=names(OWN, (_BANK,)) or [NONE], tooltip="Bank in models/faceveil/banks.")
            ],
            outputs=[
                BankSocket.Output(
                    display_name="bank",
                    tooltip="For Map to Pseudonym, Nearest Synthetic Person and Swap with Identity.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, bank: str = NONE, **_: object) -> str:
        return model_stamp(OWN, bank)

    @classmethod
    def execute(cls, bank: str = "") -> io.NodeOutput:
        from ...pipelines.identity.bank import load_bank

        return io.NodeOutput(
            load_bank(path_of(OWN, bank, "build a bank with Build Synthetic Bank and reload the page").parent)
        )


class NearestSyntheticPerson(io.ComfyNode):
    HELP = """
    IDDiffuse chooses the nearest identity of its bank. This node skips synthetic people that the recognizer would
    match with the original, because they would not hide the person.

    The choice depends on the face, so it reveals some information about the person. Use **Map to Pseudonym** with the
    same bank to avoid this.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_NearestSyntheticPerson",
            search_aliases=["IDDiffuse", "nearest identity"],
            display_name="Nearest Synthetic Person",
            category=CATEGORY,
            description=(
                "Find the most similar synthetic person in a bank that a recognizer does not match with the original"
                " (the mapping of IDDiffuse)."
            ),
            inputs=[
                IdentitySocket.Input(
                    "identity",
                    tooltip="From Embed Faces with the recognizer of the bank. Several vectors are averaged.",
                ),
                BankSocket.Input("bank", tooltip="From Build or Load Synthetic Bank."),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="For Veil Faces or Swap with Identity."),
                io.Image.Output(
                    display_name="image",
                    tooltip="Portrait of the synthetic person, 256 px. It can be the source of Encode Reference.",
                ),
                io.Int.Output(display_name="number", tooltip="Number of the person in the bank."),
            ],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, bank: Bank) -> io.NodeOutput:
        number = bank.nearest_free(one_identity(identity))
        return io.NodeOutput(bank.identities[number], pixels_to_image(bank.portrait(number)), number)


NODES = [BuildSyntheticBank, LoadSyntheticBank, NearestSyntheticPerson]
