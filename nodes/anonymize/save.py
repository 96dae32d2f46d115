"""Node that saves images without the metadata that ComfyUI normally writes: workflow, prompt and file names."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import torch
from comfy_api.latest import io, ui

from ..convert import bar, image_alpha, image_to_pixels
from ..schema import schema
from ..sockets import ROOT

_SHOWN = (".png", ".jpg", ".webp")
"""What a browser shows."""
_ENDINGS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}


class SaveDeidentifiedImage(io.ComfyNode):
    HELP = """
    ComfyUI's own *Save Image* writes the whole workflow into the file, including the name of the loaded photo. This
    node writes only pixels. Connect the image output of **Veil Faces** or **Redact Faces**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SaveDeidentifiedImage",
            search_aliases=["save without metadata", "strip metadata", "save clean"],
            display_name="Save De-identified Image",
            category=ROOT,
            is_output_node=True,
            description="Save images without metadata: no workflow, no prompt, no source file name, no EXIF.",
            inputs=[
                io.Image.Input("image", tooltip="Images to save."),
                io.String.Input(
                    "filename_prefix",
                    default="veiled",
                    tooltip="File name prefix in ComfyUI's output folder. It may include a subfolder: subfolder/name.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(_ENDINGS),
                    default="png",
                    tooltip="png, webp and tiff are lossless; jpg is smaller.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, filename_prefix: str, format: str) -> io.NodeOutput:
        import folder_paths

        from ...pipelines.imaging.image import LoadedImage
        from ...pipelines.imaging.save import save_image

        pixels, alpha, progress = image_to_pixels(image), image_alpha(image), bar()
        height, width = pixels.shape[-2:]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        saved: list[ui.SavedResult] = []
        for index in range(len(pixels)):
            progress(index, len(pixels), "saving")
            file = f"{name}_{counter + index:05}_{_ENDINGS[format]}"
            row = slice(index, index + 1)
            loaded = LoadedImage(pixels[row], None if alpha is None else alpha[row])
            save_image(loaded, Path(folder) / file)
            if _ENDINGS[format] in _SHOWN:
                saved.append(ui.SavedResult(file, subfolder, io.FolderType.output))
            else:
                # Browsers show no TIFF, so the node shows a copy.
                copy = f"faceveil-{uuid4().hex}.png"
                save_image(loaded, Path(folder_paths.get_temp_directory()) / copy)
                saved.append(ui.SavedResult(copy, "", io.FolderType.temp))
        progress(len(pixels), len(pixels), "saving")
        return io.NodeOutput(ui=ui.SavedImages(saved))


NODES = [SaveDeidentifiedImage]
