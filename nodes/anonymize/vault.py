"""Nodes for the way back: seal the original pixels of faces in a vault, and restore them with its key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui

from ...pipelines.core.errors import InputError
from ...pipelines.core.files import write_whole
from ...pipelines.core.sealing import Secret
from ...pipelines.faces.face import Face, Faces
from ..convert import image_to_pixels, mask_from_socket, pixels_to_image
from ..inputs import is_key_name, no_key_name
from ..schema import schema
from ..sockets import ROOT, FacesSocket

KEY_SUFFIX, VAULT_SUFFIX = ".vaultkey", ".vault"
CATEGORY = f"{ROOT}/vault"
ALL = -1
"""Person number that stands for everyone."""


class SealOriginals(io.ComfyNode):
    HELP = """
    Off unless you use it: without this node nothing of the original is kept. The vault holds the original pixels of
    each face, encrypted (AES-256-GCM). It belongs to exactly this veiled image: save that with **Save De-identified
    Image** as png, webp or tiff, not as jpg. **Restore Faces** brings the faces back, all of them or one person's.

    The key is a random file in ComfyUI's user folder, `faceveil/NAME.vaultkey`, made when missing. It is never stored
    in a workflow. Copy it to a safe place: without it the originals are lost. Keep it apart from the vaults: who has
    both sees the originals. As long as a key exists, the veiled images are pseudonymous, not anonymous, to the law.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SealOriginals",
            search_aliases=["reversible anonymization", "encrypt faces", "vault"],
            display_name="Seal Originals",
            category=CATEGORY,
            is_output_node=True,
            description="Encrypt the original pixels of veiled faces, so that the owner of the key can restore them.",
            inputs=[
                io.Image.Input("original", tooltip="The images before Veil Faces or Redact Faces."),
                io.Image.Input("veiled", tooltip="The images after it."),
                io.Mask.Input("mask", tooltip="The mask of changed pixels, from the same node."),
                io.String.Input("key", default="vault", tooltip="Name of the key in ComfyUI's user folder."),
                io.String.Input(
                    "filename_prefix", default="originals", tooltip="Name of the vault in ComfyUI's output folder."
                ),
                FacesSocket.Input(
                    "faces",
                    optional=True,
                    tooltip="From Veil Faces: each face can then be restored alone, by its number.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="vault", tooltip="File name of the vault, for Restore Faces."),
            ],
        )

    @classmethod
    def validate_inputs(cls, key: str | None = None) -> bool | str:
        return True if key is None or is_key_name(key) else no_key_name(key)

    @classmethod
    def execute(
        cls,
        original: torch.Tensor,
        veiled: torch.Tensor,
        mask: torch.Tensor,
        key: str,
        filename_prefix: str,
        faces: Faces | None = None,
    ) -> io.NodeOutput:
        import folder_paths

        from ...pipelines.jobs.vault import Digest, Sealed, VaultWriter

        before, after = _values(original), _values(veiled)
        if [v.shape for v in before] != [v.shape for v in after]:
            raise InputError("original and veiled have different sizes; connect both sides of one Veil Faces")
        height, width = before[0].shape[:2]
        masks = mask_from_socket(mask, len(before), height, width)[:, 0].numpy() > 0
        if faces is not None:
            faces.check(image_to_pixels(original))
        secret = _secret(key)
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        file = f"{name}_{counter:05}_{VAULT_SUFFIX}"
        digest = Digest()
        with VaultWriter(Path(folder) / file, secret) as vault:
            for number, (pixels, changed) in enumerate(zip(before, masks, strict=True)):
                if (after[number][~changed] != pixels[~changed]).any():
                    raise InputError(f"image {number} differs outside the mask; connect the mask of the same node")
                owners = _owners(changed, [] if faces is None else list(enumerate(faces)), number)
                for person in sorted({int(v) for v in np.unique(owners)} - {ALL}):
                    vault.add(person, number, Sealed.of(pixels, owners == person))
                digest.add(after[number])
            vault.finish(digest.hex)
        where = f"{subfolder}/{file}" if subfolder else file
        return io.NodeOutput(where, ui=ui.PreviewText(f"sealed in {where}"))


class RestoreFaces(io.ComfyNode):
    HELP = """
    The image must be exactly the one that was sealed: load the saved png, webp or tiff, unchanged. A changed image, a
    changed vault or another key is refused.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_RestoreFaces",
            search_aliases=["undo anonymization", "decrypt faces", "vault"],
            display_name="Restore Faces",
            category=CATEGORY,
            description="Bring back the original faces from a vault of Seal Originals.",
            inputs=[
                io.Image.Input("image", tooltip="The veiled images, unchanged since they were sealed."),
                io.String.Input("vault", tooltip="File name of the vault in ComfyUI's output or input folder."),
                io.String.Input("key", default="vault", tooltip="Name of the key in ComfyUI's user folder."),
                io.Int.Input(
                    "person", default=ALL, min=ALL, max=9999, tooltip="Number of the face to restore; -1 restores all."
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The images with the original faces.")],
        )

    @classmethod
    def validate_inputs(cls, key: str | None = None) -> bool | str:
        return True if key is None or is_key_name(key) else no_key_name(key)

    @classmethod
    def execute(cls, image: torch.Tensor, vault: str, key: str, person: int) -> io.NodeOutput:
        from ...pipelines.jobs.vault import Digest, Vault

        path = _key_path(key)
        if not path.is_file():
            raise InputError(f"there is no key {path.name} in ComfyUI's user folder; copy it there")
        opened = Vault.open(_vault_path(vault), Secret.from_file(path))
        values, digest = _values(image), Digest()
        for one in values:
            digest.add(one)
        opened.check(digest.hex, "the image")
        for number, blocks in opened.faces(None if person == ALL else person).items():
            for sealed in opened.read(blocks):
                sealed.restore(values[number])
        pixels = torch.from_numpy(np.stack(values)).movedim(-1, 1).float() / 255
        return io.NodeOutput(pixels_to_image(pixels))


def _values(image: torch.Tensor) -> list[np.ndarray]:
    """The images as a saved file holds them, ``(H, W, 3)``, uint8."""
    from ...pipelines.imaging.uint8 import to_uint8

    return [to_uint8(one) for one in image_to_pixels(image)]


def _owners(changed: np.ndarray, faces: list[tuple[int, Face]], image: int) -> np.ndarray:
    """The number of the face that each changed pixel ``(H, W)`` is nearest to; 0 without faces, -1 where nothing is."""
    owners = np.where(changed, 0, ALL)
    here = [(number, face) for number, face in faces if face.image == image]
    rows, columns = np.nonzero(changed)
    if not here or not len(rows):
        return owners
    distances = []
    for _, face in here:
        x1, y1, x2, y2 = face.box
        distances.append(np.hypot(columns + 0.5 - (x1 + x2) / 2, rows + 0.5 - (y1 + y2) / 2) / face.size)
    owners[rows, columns] = np.array([number for number, _ in here])[np.argmin(distances, axis=0)]
    return owners


def _secret(name: str) -> Secret:
    """The key of this name, made when missing."""
    path = _key_path(name)
    if not path.is_file():
        write_whole(path, Secret.new().value, private=True)
    return Secret.from_file(path)


def _key_path(name: str) -> Path:
    import folder_paths

    if not is_key_name(name):
        raise InputError(no_key_name(name))
    return Path(folder_paths.get_user_directory()) / "faceveil" / f"{name}{KEY_SUFFIX}"


def _vault_path(name: str) -> Path:
    """The vault of this name; it cannot lie outside ComfyUI's folders."""
    import folder_paths

    for folder in (folder_paths.get_output_directory(), folder_paths.get_input_directory()):
        root = Path(folder).resolve()
        path = (root / name).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    raise InputError(f"there is no vault {name!r} in ComfyUI's output or input folder; copy it there")


NODES = [SealOriginals, RestoreFaces]
