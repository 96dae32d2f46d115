"""Write the help page of every node and the English texts from the schemas: ``python web/build.py COMFYUI_DIR``.

What a node is for in more than a sentence lives in ``NOTES`` here; the rest is the schema's own text, so that nothing
drifts.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

NOTES = {
    "FaceVeil_SamplePortrait": (
        "Templates start from this picture, so that they run before you load anything. Put **Load Image** in its place"
        " for your own."
    ),
    "FaceVeil_DetectFaces": (
        "Faces from about 24 px to the whole picture are found, also on their side. Look at the result with **Preview"
        " Faces** before you trust it: no detector finds every face. Lower the threshold when one is missed."
    ),
    "FaceVeil_SelectFaces": (
        "**others** holds what was not chosen: to keep one person and veil the rest, select that person and wire"
        " *others* into Veil Faces. Reference photos are compared with dlib's recognizer; a face that cannot be"
        " compared is treated as a stranger."
    ),
    "FaceVeil_PreviewFaces": "The number at each box is the one that *Select Faces* understands.",
    "FaceVeil_VeilFaces": (
        "Each face gets the look of somebody who does not exist: another shape, another texture. The photo's light,"
        " color, grain and sharpness stay, because its own pixels are moved and multiplied instead of being painted"
        " over.\n\n**What is checked.** The result is compared with the original by dlib's recognizer (128-d, same"
        " person below 0.60). Up to three identities are tried; what is still recognized, too small or turned beyond 45"
        " degrees is treated as *unsafe_face* says. No other recognizer is asked, and people who know someone may go by"
        " hair, clothes and place.\n\n**What it cannot do.** Profiles, children's proportions, and glasses that hide"
        " half the face; wrinkles and beards follow the original."
    ),
    "FaceVeil_RedactFaces": (
        "Use *solid* when it matters. Pixelate and blur are tied to the size of the face and still weaker than a solid"
        " cover."
    ),
    "FaceVeil_CropFaces": (
        "The squares can go through any other node: an inpainting graph, a restorer, a face model. Keep their order."
    ),
    "FaceVeil_PasteFaces": "Squares may have been resized on the way, but none may be added or dropped.",
    "FaceVeil_CompareIdentity": (
        "The recognizer is dlib's (CC0). Below 0.60 it says *same person*; between strangers the mean is about 0.85. "
        "Wire *verdict* into **Preview Any**."
    ),
    "FaceVeil_LoadReferenceNet": (
        "The files are those of *hkung/face-anon-simple*: put `referencenet/diffusion_pytorch_model.safetensors` and"
        " `conditioning_referencenet/diffusion_pytorch_model.safetensors` (3.5 GB each) into"
        " `models/faceveil/face-anon-simple`. Nothing is downloaded. Mind the license on their page: the authors' code"
        " is AGPL-3.0; this pack holds none of it."
    ),
    "FaceVeil_LoadFaceDenoiser": (
        "`unet/diffusion_pytorch_model.safetensors` of *hkung/face-anon-simple*. Networks of another size, as `faceveil"
        " train referencenet` makes, need their `config.json` beside them."
    ),
    "FaceVeil_EncodeReference": (
        "Wire **Crop Faces** (size 512) into *image*. Core's *Load VAE* and *Load CLIP Vision* bring the other two;"
        " Stable Diffusion 2.1 was withdrawn by its owner in November 2025, a VAE of any Stable Diffusion 1 or 2 does"
        " the same. Each picture is encoded once: try levels and seeds without waiting for it."
    ),
    "FaceVeil_AnonymizationLevel": (
        "The paper's degree d: Z' = (1 - d) Z and S' = (1 - d) S + d S_unconditional. At 1 the person is ignored,"
        " beyond 1 the result moves away from the person. 1.25 is recommended (strength 1); the paper's tables use 1.2"
        " and 1.4. **Check the result with Compare Identity**: nothing here does it for you."
    ),
    "FaceVeil_ApplyReferenceNet": (
        "*positive* and *negative* carry the references; wire both into KSampler with cfg 4. Any sampler, scheduler,"
        " LoRA or preview works; the unpatched model stays as it was. The paper's 200 steps are sampler *ddpm* with"
        " scheduler *ddim_uniform*. **Paste Faces** puts the decoded squares back."
    ),
    "FaceVeil_EmbedFaces": (
        "dlib's recognizer, 128 numbers made unit length, or the one you connect. The vector of a real person is"
        " personal data: who has it can search for that person. It is not in any picture or report that this pack"
        " writes."
    ),
    "FaceVeil_SampleIdentity": (
        "DiffDeID does not define its ten levels. Here level L starts the sampler from the original noised to L / 10 of"
        " its time and keeps the candidate whose cosine is nearest to 0.60 - 0.07 (L - 1), around the mean of all"
        " people. The sampler knows 3,200 people who do not exist."
    ),
    "FaceVeil_BlendIdentity": "On the great circle between the two. Show the result with **Veil Faces**.",
    "FaceVeil_PerturbIdentity": (
        "Noise of N(0, scale^2) clamped to [-1, 1], as in IDEudemon. Check with **Identity Distance** how far it went."
    ),
    "FaceVeil_MapToPseudonym": (
        "The key is 32 random bytes in ComfyUI's user folder, `faceveil/NAME.key`, with its ledger beside it. The"
        " ledger holds keyed hashes of quantized decisions and numbers, no vectors. Keep the key away from the ledger"
        " when you share one: who has both can test whether a face is in it. Lose the key, and the pseudonyms are gone."
        " Photos that a recognizer would not take for one person get two."
    ),
    "FaceVeil_SaveIdentity": "safetensors with the space and the date. Nothing says where the vector came from.",
    "FaceVeil_LoadIdentity": "Files that are damaged or of another kind are refused with a reason.",
    "FaceVeil_SwapWithIdentity": (
        "You need `inswapper_128.onnx` and `w600k_r50.onnx`, which other face packs use as well; their licenses exclude"
        " commercial use. Who is shown comes from *identity*, *bank* or *sampler*, and is never a photo you swap in by"
        " accident: to wear a person of your own, embed the person's picture with the same recognizer.\n\n**What is"
        " checked.** dlib's recognizer compares the result with the original, as in Veil Faces; the policies act on"
        " what it still knows.\n\n**What it cannot do.** The swapper works at 128 px: larger faces come out softer."
        " What covers a face may be painted over."
    ),
    "FaceVeil_LoadRecognizer": (
        "*arcface*: `w600k_r50.onnx` of insightface. *adaface*, *sphereface*, *mobileface*: uniface's files under their"
        " own names, checked by SHA-256. *facenet*: `20180402-114759-vggface2.pt` of facenet-pytorch. *farl*:"
        " `FaRL-Base-Patch16-LAIONFace20M-ep64.pth`. They differ in who looks alike: the thresholds of AdaFace,"
        " SphereFace and MobileFace are ArcFace's, unmeasured, and FaRL has none; `faceveil calibrate` measures one on"
        " photos of strangers. insightface and uniface are installed with `pip install insightface uniface`."
    ),
    "FaceVeil_BuildSyntheticBank": (
        "Use pictures of people who do not exist, from a generator. Each face is found, embedded and kept as a 256 px"
        " crop without its file's name; one that is nearer to another than half the recognizer's threshold is taken for"
        " the same person and left out. Nothing is built twice: choose another name, or delete the folder, to start"
        " anew."
    ),
    "FaceVeil_LoadSyntheticBank": "A bank belongs to the recognizer that it was built with.",
    "FaceVeil_NearestSyntheticPerson": (
        "IDDiffuse takes the nearest identity of its bank. Here somebody whom the recognizer would take for the"
        " original is passed over, because that would hide nobody. Without a key the choice tells a little about the"
        " person: **Map to Pseudonym** with the same bank does not."
    ),
    "FaceVeil_IdentityDistance": (
        "dlib's threshold of 0.6 on raw vectors is 0.396 on the unit vectors that identities are."
    ),
    "FaceVeil_LoadMorphableModel": (
        "The **built-in** model (2,440 vertices, 40 shapes, 7 expressions, 48 textures) needs nothing. **BFM** is"
        " prepared with Deep3DFaceRecon and needs a registration; **ICT-FaceKit** is a clone of its repository (MIT),"
        " put into `models/faceveil`. `faceveil convert-morphable` turns either into one file that opens at once. All"
        " are kept in decimeters with the same camera, so that nodes treat them alike."
    ),
    "FaceVeil_EstimateCoefficients": (
        "Fitting starts from 68 landmarks, then explains the picture with light and texture, and refines all together:"
        " about a second a face. The wires of *overlay* should lie on the face; *numbers* says how far landmarks are"
        " off, in shares of the distance between the eyes (2 % or less is good).\n\n**What it cannot do.** Depth is"
        " guessed from one picture with what faces usually look like; heads turned beyond 45 degrees, hands and masks"
        " mislead it. The eyes' direction is read from the darkest part between the lids."
    ),
    "FaceVeil_EditCoefficients": (
        "Models have no mode called *jaw width*: each slider is a measure between landmarks, and the least change of"
        " the coefficients that moves it and leaves the other measures is applied. 1 is a standard deviation among"
        " people; beyond 3 faces fall apart."
    ),
    "FaceVeil_ReplaceCoefficients": (
        "Both must be of one model. *pose* is the turn and place of the head, *lighting* the light as nine harmonics a"
        " color."
    ),
    "FaceVeil_PerturbCoefficients": (
        "IDEudemon adds noise of 0.05 to 0.40 to HeadNeRF's codes; these coefficients have unit variance, so that 1 is"
        " as far as people differ. A changed shape alone does not hide a person from a recognizer: veil the result."
    ),
    "FaceVeil_SampleGeometry": (
        "The sampler was trained on the shapes of 3,200 people who do not exist, fitted with the built-in model; it"
        " works with that model only. Expression, light, pose and gaze stay."
    ),
    "FaceVeil_Render3DFace": (
        "*normals* and *depth* are what ControlNets expect (depth: the nearest point is white). With an image, the"
        " faces are drawn at the picture's size where they belong; without one, each face fills a square."
    ),
    "FaceVeil_ReshapeFace": (
        "The photo's own pixels move; nothing is painted. What was hidden cannot appear, so turn a head by a few"
        " degrees only. **It hides nobody**: put *Veil Faces* behind it."
    ),
    "FaceVeil_SaveCoefficients": "A safetensors file with the numbers and where each face lies in its picture.",
    "FaceVeil_LoadCoefficients": "Rows are taken for pictures of a batch in order when they are drawn over an image.",
    "FaceVeil_SaveDeidentifiedImage": (
        "ComfyUI's own *Save Image* writes the whole workflow into the file, with the name of the photo you loaded."
        " This node writes pixels only."
    ),
}


def load_nodes(comfy: Path) -> list[Any]:
    """All node classes of the pack inside a ComfyUI folder."""
    sys.path.insert(0, str(comfy))
    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    sys.argv = arguments
    spec = importlib.util.spec_from_file_location(
        "faceveil_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faceveil_pack"] = module
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    return list(asyncio.run(extension.get_node_list()))


def page(schema: Any) -> str:
    """Help page of one node."""
    lines = [f"# {schema.display_name}", "", schema.description, "", NOTES[schema.node_id], ""]
    if schema.inputs:
        lines += ["## Inputs", ""]
        lines += [f"- **{i.id}**{' (optional)' if i.optional else ''}: {i.tooltip}" for i in schema.inputs] + [""]
    if schema.outputs:
        lines += ["## Outputs", ""] + [f"- **{o.display_name}**: {o.tooltip}" for o in schema.outputs] + [""]
    return "\n".join(lines)


def definitions(schemas: list[Any]) -> dict[str, Any]:
    """English ``nodeDefs.json``."""
    return {
        s.node_id: {
            "display_name": s.display_name,
            "description": s.description,
            "inputs": {i.id: {"name": i.id, "tooltip": i.tooltip} for i in s.inputs},
            "outputs": {str(n): {"name": o.display_name, "tooltip": o.tooltip} for n, o in enumerate(s.outputs)},
        }
        for s in schemas
    }


def main() -> None:
    schemas = [node.GET_SCHEMA() for node in load_nodes(Path(sys.argv[1]).resolve())]
    docs = ROOT / "web" / "docs"
    docs.mkdir(parents=True, exist_ok=True)
    for schema in schemas:
        (docs / f"{schema.node_id}.md").write_text(page(schema), encoding="utf-8")
    target = ROOT / "locales" / "en" / "nodeDefs.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(definitions(schemas), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
