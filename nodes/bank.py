"""Recognizers from files, and banks of synthetic people: build one, open one, find somebody in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..pipelines.core.errors import InputError
from .convert import bar, pixels_to_image
from .files import FACES, OWN, names, path_of
from .identity import CATEGORY, one_identity
from .sockets import BankSocket, IdentitySocket, RecognizerSocket

_NETWORKS = (".onnx", ".pt", ".pth", ".safetensors")
_BANK = "bank.safetensors"


class LoadRecognizer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..pipelines.recognition.kinds import KINDS

        return io.Schema(
            node_id="FaceVeil_LoadRecognizer",
            display_name="Load Recognizer",
            category=CATEGORY,
            description="Open a recognizer that you have, in place of the built-in dlib. Nothing is downloaded.",
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    tooltip="dlib needs no file. Vectors of different recognizers cannot be mixed.",
                ),
                io.Combo.Input(
                    "file",
                    options=["none", *names(FACES, _NETWORKS)],
                    tooltip="From models/faceveil or models/insightface.",
                ),
            ],
            outputs=[
                RecognizerSocket.Output(
                    display_name="recognizer", tooltip="For Embed Faces, Build Synthetic Bank and Swap with Identity."
                )
            ],
        )

    @classmethod
    def execute(cls, kind: str, file: str = "none") -> io.NodeOutput:
        from ..pipelines.recognition.catalog import open_recognizer

        path = None if file == "none" else path_of(FACES, file, "put it there and reload the page")
        return io.NodeOutput(open_recognizer(kind, path))


class BuildSyntheticBank(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_BuildSyntheticBank",
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
    def execute(cls, folder: str, name: str, recognizer: Any = None) -> io.NodeOutput:
        import folder_paths

        from ..pipelines.identity.bank import load_bank
        from ..pipelines.jobs.portraits import bank_from_folder
        from ..pipelines.recognition.catalog import open_recognizer

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
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_LoadSyntheticBank",
            display_name="Load Synthetic Bank",
            category=CATEGORY,
            description="Open a bank of synthetic people that Build Synthetic Bank made.",
            inputs=[io.Combo.Input("bank", options=names(OWN, (_BANK,)), tooltip="From models/faceveil/banks.")],
            outputs=[
                BankSocket.Output(
                    display_name="bank",
                    tooltip="For Map to Pseudonym, Nearest Synthetic Person and Swap with Identity.",
                )
            ],
        )

    @classmethod
    def execute(cls, bank: str = "") -> io.NodeOutput:
        from ..pipelines.identity.bank import load_bank

        return io.NodeOutput(
            load_bank(path_of(OWN, bank, "make one with Build Synthetic Bank and reload the page").parent)
        )


class NearestSyntheticPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_NearestSyntheticPerson",
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
    def execute(cls, identity: Any, bank: Any) -> io.NodeOutput:
        number = bank.nearest_free(one_identity(identity))
        picture: torch.Tensor = bank.picture(number)
        return io.NodeOutput(bank.identities[number], pixels_to_image(picture), number)


NODES = [LoadRecognizer, BuildSyntheticBank, LoadSyntheticBank, NearestSyntheticPerson]
