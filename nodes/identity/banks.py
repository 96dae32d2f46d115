"""Nodes for banks of synthetic people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ..convert import bar, pixels_to_image
from ..files import OWN, names, path_of
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
    Use pictures of people who do not exist, from a generator. Each face is found, embedded and kept as a 256 px
    crop without its file's name; one that is nearer to another than half the recognizer's threshold is taken for
    the same person and left out. Nothing is built twice: choose another name, or delete the folder, to start anew.
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
                "Collect people who do not exist from a folder of their pictures, once, to give them out later."
            ),
            inputs=[
                io.String.Input(
                    "folder",
                    default="synthetic_faces",
                    tooltip="Below ComfyUI's input folder: pictures of synthetic people, one each.",
                ),
                io.String.Input(
                    "name",
                    default="people",
                    tooltip="Of the bank. It is kept in models/faceveil/banks; an existing one is opened as it is.",
                ),
                RecognizerSocket.Input("recognizer", optional=True, tooltip="dlib's without one."),
            ],
            outputs=[
                BankSocket.Output(
                    display_name="bank",
                    tooltip="For Map to Pseudonym, Nearest Synthetic Person and Swap with Identity.",
                ),
                io.Int.Output(
                    display_name="people", tooltip="How many it holds; somebody who was there already is left out."
                ),
            ],
        )

    @classmethod
    def execute(cls, folder: str, name: str, recognizer: FaceRecognizer | None = None) -> io.NodeOutput:
        import folder_paths

        from ...pipelines.identity.bank import load_bank
        from ...pipelines.jobs.portraits import bank_from_folder
        from ...pipelines.recognition.catalog import open_recognizer

        if not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"the bank's name {name!r} may hold letters, digits, - and _ only")
        place = Path(folder_paths.get_folder_paths("faceveil")[0]) / "banks" / name
        if (place / _BANK).is_file():
            bank = load_bank(place)
        else:
            root = Path(folder_paths.get_input_directory()).resolve()
            pictures = (root / folder).resolve()
            if not pictures.is_relative_to(root) or not pictures.is_dir():
                raise InputError(f"{folder} is not a folder below ComfyUI's input folder; put the pictures there")
            # Other processes would start ComfyUI again.
            bank = bank_from_folder(pictures, place, recognizer or open_recognizer(), workers=1, progress=bar())
        return io.NodeOutput(bank, len(bank))


class LoadSyntheticBank(io.ComfyNode):
    HELP = """
    A bank belongs to the recognizer that it was built with.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadSyntheticBank",
            search_aliases=["identity bank"],
            display_name="Load Synthetic Bank",
            category=CATEGORY,
            description="Open a bank of synthetic people that Build Synthetic Bank made.",
            inputs=[
                io.Combo.Input("bank", options=names(OWN, (_BANK,)) or [NONE], tooltip="From models/faceveil/banks.")
            ],
            outputs=[
                BankSocket.Output(
                    display_name="bank",
                    tooltip="For Map to Pseudonym, Nearest Synthetic Person and Swap with Identity.",
                )
            ],
        )

    @classmethod
    def execute(cls, bank: str = "") -> io.NodeOutput:
        from ...pipelines.identity.bank import load_bank

        return io.NodeOutput(
            load_bank(path_of(OWN, bank, "make one with Build Synthetic Bank and reload the page").parent)
        )


class NearestSyntheticPerson(io.ComfyNode):
    HELP = """
    IDDiffuse takes the nearest identity of its bank. Here somebody whom the recognizer would take for the original
    is passed over, because that would hide nobody. Without a key the choice tells a little about the person: **Map
    to Pseudonym** with the same bank does not.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_NearestSyntheticPerson",
            search_aliases=["IDDiffuse", "nearest identity"],
            display_name="Nearest Synthetic Person",
            category=CATEGORY,
            description=(
                "Find the person of a bank who is most alike and still tells as somebody else (the mapping of"
                " IDDiffuse)."
            ),
            inputs=[
                IdentitySocket.Input("identity", tooltip="From Embed Faces with the bank's recognizer, averaged."),
                BankSocket.Input("bank", tooltip="From Build or Load Synthetic Bank."),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="For Veil Faces or Swap with Identity."),
                io.Image.Output(
                    display_name="picture", tooltip="The synthetic person, 256 px; also a source for Encode Reference."
                ),
                io.Int.Output(display_name="number", tooltip="In the bank."),
            ],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, bank: Bank) -> io.NodeOutput:
        number = bank.nearest_free(one_identity(identity))
        return io.NodeOutput(bank.identities[number], pixels_to_image(bank.portrait(number)), number)


NODES = [BuildSyntheticBank, LoadSyntheticBank, NearestSyntheticPerson]
