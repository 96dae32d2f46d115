"""Inversion inside ComfyUI: the recorded runs, the library's numbers on the same files, and other patches beside it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import EMBEDDING, patch_comfy, write_adapter, write_checkpoint
from graph import run_template

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS, WORKFLOWS = ROOT / "benchmarks", ROOT / "workflows"
FAMILIES = ("sd15", "sdxl")
STEPS = 10


@pytest.fixture(scope="module")
def package(nodes) -> Any:
    """A module of the pack as ComfyUI loaded it."""
    return lambda name: importlib.import_module(f"faceveil_pack.{name}")


@pytest.fixture(scope="module")
def parity(nodes) -> Any:
    modules = {}
    for name in ("inversion_parity", "inversion_comfy"):
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        modules[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    return modules["inversion_parity"]


@pytest.mark.parametrize("number", range(3))
def test_recorded_runs(parity, number: int) -> None:
    if not parity.FIXTURE.is_dir():
        pytest.skip("the recorded runs are not beside the repository")
    entry = json.loads((parity.FIXTURE / "manifest.json").read_text())["cases"][number]
    case = parity.open_case(parity.FIXTURE, entry)
    assert parity.comfy_error(case) <= parity.BARS["comfy"]


@pytest.fixture(scope="module", params=FAMILIES)
def files(request, nodes, tmp_path_factory) -> Any:
    """Names of a checkpoint and an adapter in ComfyUI's model folders, and their folder and family."""
    import folder_paths

    root = tmp_path_factory.mktemp(request.param)
    patch = pytest.MonkeyPatch()
    (root / "clip").mkdir()
    patch_comfy(patch, root / "clip")
    write_checkpoint(root / f"{request.param}.safetensors", request.param)
    write_adapter(root / f"ip-adapter-faceid_{request.param}.bin", request.param)
    for kind in ("checkpoints", "ipadapter"):
        folder_paths.add_model_folder_path(kind, str(root))
    yield request.param, root
    patch.undo()


@pytest.fixture(scope="module")
def loaded(files) -> Any:
    """MODEL, CLIP and VAE of core's loader, and the CONDITIONING of the empty text."""
    import nodes as core

    family, _ = files
    with torch.inference_mode():
        model, clip, vae = core.CheckpointLoaderSimple().load_checkpoint(f"{family}.safetensors")[:3]
        empty = core.CLIPTextEncode().encode(clip, "")[0]
    return model, clip, vae, empty


@pytest.fixture(scope="module")
def patched(run, files, loaded) -> Any:
    faceid = run("LoadFaceID", adapter=f"ip-adapter-faceid_{files[0]}.bin")[0]
    return run("ApplyFaceID", model=loaded[0], faceid=faceid)[0], faceid


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(2, 4, 8, 10, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture(scope="module")
def person(package) -> Any:
    vectors = np.random.default_rng(0).normal(size=(2, EMBEDDING))
    return package("pipelines.identity.identity").Identity(vectors, "arcface-w600k")


def algorithm(family: str) -> str:
    return "nullface" if family == "sd15" else "reverse_personalization"


def inverted(run, files, loaded, patched, latents, seed=3, model=None) -> Any:
    return run(
        "InvertPicture",
        model=model or patched[0],
        latent={"samples": latents},
        empty=loaded[3],
        algorithm=algorithm(files[0]),
        steps=STEPS,
        seed=seed,
    )[0]


@pytest.fixture(scope="module")
def inversion(run, files, loaded, patched, latents) -> Any:
    return inverted(run, files, loaded, patched, latents)


def result(run, patched, inversion, person, **options: Any) -> torch.Tensor:
    given = {"model": patched[0], "inversion": inversion, "identity": person} | options
    return run("AnonymizeByInversion", **given)[0]["samples"]


def test_the_library_opens_the_same_file_and_predicts_the_same(
    package, files, loaded, patched, inversion, person, latents
) -> None:
    """Texts, and the noise of every row; ComfyUI's adapter, LoRA and size ids against the diffusers UNet's."""
    family, root = files
    networks = package("pipelines.methods.inversion.networks").open_networks(
        root / f"{family}.safetensors", root / f"ip-adapter-faceid_{family}.bin"
    )
    assert (networks.empty.states - loaded[3][0][0]).abs().max() < 2e-2
    if family == "sdxl":
        assert (networks.empty.pooled - loaded[3][0][1]["pooled_output"]).abs().max() < 2e-2
    module = package("pipelines.methods.inversion.pipeline")
    pipeline = module.InversionPipeline(networks, algorithm(family), STEPS)
    scale = networks.vae.config.scaling_factor
    assert scale == pytest.approx(loaded[0].model.latent_format.scale_factor)
    embeddings = torch.from_numpy(person.vectors).float()
    own = module.UNetDenoiser(networks.unet, pipeline.conditions(embeddings, 64, 80))
    found = {}

    def algorithm_of(denoise, bars, x0, progress):
        for t in (1, 301):
            for row in ("nothing", "empty", "identity"):
                found[t, row] = denoise(x0, t, (row,))[0]
        return x0

    native = package("nodes.native.inversion")
    with torch.inference_mode():
        rows = native.rows_of(patched[0], loaded[3], embeddings, None, algorithm(family))
        native.run(patched[0], rows, latents, algorithm_of, 1)
        for (t, row), eps in found.items():
            # The texts come from half-precision encoders; take ComfyUI's.
            assert (own(latents * scale, t, (row,))[0] - eps).abs().max() < 2e-2 * eps.std() + 1e-3, (t, row)
    assert (found[301, "identity"] - found[301, "empty"]).abs().mean() > 1e-3


def test_strength_0_gives_the_latents_back(run, patched, inversion, person, latents) -> None:
    assert torch.equal(result(run, patched, inversion, person, strength=0.0), latents)


def test_the_result_is_another_one_and_repeats(run, patched, inversion, person, latents) -> None:
    first, again = (result(run, patched, inversion, person) for _ in range(2))
    assert torch.equal(first, again) and bool(torch.isfinite(first).all())
    weak = result(run, patched, inversion, person, strength=0.2)
    assert 0 < (weak - latents).abs().mean() < (first - latents).abs().mean()


def test_a_batch_equals_single_pictures(run, files, loaded, patched, inversion, person, latents) -> None:
    both = result(run, patched, inversion, person)
    alone = inverted(run, files, loaded, patched, latents[1:], seed=4)
    one = result(run, patched, alone, person[1])
    assert (both[1:] - one).abs().max() < 2e-3 * both.std()


def test_rows_apart_equal_rows_together(run, patched, inversion, person, monkeypatch) -> None:
    import comfy.model_base

    together = result(run, patched, inversion, person)
    # ComfyUI puts rows together while it expects them to fit into memory.
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *_a, **_k: 1e18)
    apart = result(run, patched, inversion, person)
    assert (together - apart).abs().max() < 2e-3 * together.std()


def test_a_held_mask_keeps_the_latents_outside(run, patched, inversion, person, latents) -> None:
    mask = torch.zeros(1, 64, 80)
    mask[:, 16:40, 16:48] = 1
    held = result(run, patched, inversion, person, mask=mask)
    inside = torch.zeros(2, 4, 8, 10, dtype=torch.bool)
    inside[..., 2:5, 2:6] = True
    assert (held - latents)[~inside].abs().max() < 1e-5
    assert (held - latents)[inside].abs().mean() > 1e-3


def test_attributes_and_dials(run, files, loaded, patched, inversion, person) -> None:
    import nodes as core

    plain = result(run, patched, inversion, person)
    with torch.inference_mode():
        prompt = core.CLIPTextEncode().encode(loaded[1], "an old man")[0]
    for options in ({"attributes": prompt}, {"guidance": 3.0}, {"id_scale": 0.3}, {"angle": 60.0}):
        assert (result(run, patched, inversion, person, **options) - plain).abs().max() > 1e-4, options
    strong = result(run, patched, inversion, person, strength=1.5)
    assert bool(torch.isfinite(strong).all())


def test_a_lora_and_another_attention_patch_stay_active(run, files, loaded, patched, latents, person) -> None:
    """Both act before and after ours is applied, and ours still carries the identity."""
    _, faceid = patched
    model = loaded[0].clone()
    calls = []

    def other(q, k, v, extra):
        from comfy.ldm.modules.attention import optimized_attention

        calls.append(extra["block"])
        return 0.5 * optimized_attention(q, k, v, extra["n_heads"])

    place = ("middle", 0)
    model.set_model_attn2_replace(other, *place)
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    model.add_patches({key: ("diff", (torch.ones(320, 320) * 0.01,))}, 1.0)
    both = run("ApplyFaceID", model=model, faceid=faceid)[0]
    assert len(both.patches[key]) == 2
    found = inverted(run, files, loaded, patched, latents, model=both)
    assert calls
    mine = result(run, (both, faceid), found, person)
    plain = result(run, patched, inverted(run, files, loaded, patched, latents), person)
    assert (mine - plain).abs().max() > 1e-3
    nobody = run("ApplyFaceID", model=model, faceid=faceid, weight=0.0)[0]
    without = result(run, (nobody, faceid), inverted(run, files, loaded, patched, latents, model=nobody), person)
    assert (mine - without).abs().max() > 1e-3


def test_faceid_works_with_ksampler(run, loaded, patched, person, latents) -> None:
    import nodes as core

    model, faceid = patched
    negative = run("FaceIDConditioning", conditioning=loaded[3], faceid=faceid)[0]

    def sampled(identity) -> torch.Tensor:
        positive = run("FaceIDConditioning", conditioning=loaded[3], faceid=faceid, identity=identity)[0]
        with torch.inference_mode():
            out = core.KSampler().sample(
                model, 1, 2, 3.0, "euler", "normal", positive, negative, {"samples": latents[:1]}, 1.0
            )
        return out[0]["samples"]

    assert (sampled(person[0]) - sampled(person[1])).abs().max() > 1e-3


def test_an_interruption_stops_it(run, files, loaded, patched, latents) -> None:
    import comfy.model_management as management

    calls = []
    original = management.throw_exception_if_processing_interrupted

    def interrupt(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            management.interrupt_current_processing(True)
        original(*args)

    patch = pytest.MonkeyPatch()
    patch.setattr(management, "throw_exception_if_processing_interrupted", interrupt)
    try:
        with pytest.raises(management.InterruptProcessingException):
            inverted(run, files, loaded, patched, latents)
    finally:
        patch.undo()
        management.interrupt_current_processing(False)
    assert len(calls) == 3


def test_skip_moves_the_start(run, files, loaded, patched, latents, person) -> None:
    """Also above the papers' 0.7, and strength 1.5 goes a tenth below it."""
    given = {"model": patched[0], "latent": {"samples": latents}, "empty": loaded[3], "algorithm": algorithm(files[0])}
    strong, weak = (run("InvertPicture", **given, steps=20, skip=skip)[0] for skip in (0.7, 0.9))
    changes = [(result(run, patched, found, person) - latents).abs().mean() for found in (strong, weak)]
    assert changes[1] < changes[0]
    more = result(run, patched, weak, person, strength=1.5)
    assert bool(torch.isfinite(more).all()) and (more - latents).abs().mean() > changes[1]


def test_another_model_is_refused(run, files, loaded, patched, inversion, person, package) -> None:
    import copy

    other = copy.copy(patched[0])
    other.model = copy.copy(patched[0].model)
    with pytest.raises(package("pipelines.core.errors").InputError, match="inverted with another model"):
        result(run, (other, patched[1]), inversion, person)


def test_bad_connections_say_what_to_do(run, files, loaded, patched, inversion, person, package, latents) -> None:
    errors = package("pipelines.core.errors")
    with pytest.raises(errors.InputError, match="connect Apply FaceID"):
        inverted(run, files, loaded, patched, latents, model=loaded[0])
    identity = package("pipelines.identity.identity").Identity
    with pytest.raises(errors.InputError, match=r"w600k_r50\.onnx, but these are of dlib"):
        result(run, patched, inversion, identity(np.ones((1, 128)), "dlib"))
    with pytest.raises(errors.InputError, match="3 identities do not match 2"):
        result(run, patched, inversion, identity(np.eye(3, EMBEDDING), "arcface-w600k"))
    with pytest.raises(errors.InputError, match="4 channels"):
        inverted(run, files, loaded, patched, torch.zeros(1, 16, 8, 8))
    with pytest.raises(errors.InputError, match="1 identities do not match 2"):
        result(run, patched, inversion, person[0])
    with pytest.raises(errors.InputError, match="has a FaceID adapter already"):
        run("ApplyFaceID", model=patched[0], faceid=patched[1])
    with pytest.raises(errors.InputError, match="with a mask"):
        masked = {"samples": latents, "noise_mask": torch.ones(1, 64, 80)}
        run("InvertPicture", model=patched[0], latent=masked, empty=loaded[3])
    with pytest.raises(errors.InputError, match="not finite"):
        inverted(run, files, loaded, patched, latents * torch.nan)
    with pytest.raises(errors.InputError, match="another family"):
        wrong = [[torch.zeros(1, 77, 5), {}]]
        run("InvertPicture", model=patched[0], latent={"samples": latents}, empty=wrong)
    with pytest.raises(errors.WeightsError, match="models/ipadapter"):
        run("LoadFaceID", adapter="none")
    if files[0] == "sdxl":
        with pytest.raises(errors.InputError, match="belongs to nullface"):
            result(run, patched, inversion, person, outside="reconstructed")


@pytest.fixture(scope="module")
def stand(package) -> Any:
    """Instead of w600k_r50.onnx, which no test has."""
    base = package("pipelines.recognition.base").FaceRecognizer

    class Stand(base):
        name, dimension, alignment = "arcface-w600k", EMBEDDING, "none"

        def embed_many(self, images: Any, landmarks: Any) -> np.ndarray:
            return np.full((len(images), EMBEDDING), EMBEDDING**-0.5)

    return Stand()


def test_the_template_runs(nodes, files, loaded, stand) -> None:
    family, _ = files
    changed = {
        "FaceVeil_CropFaces": {"size": 64},
        "FaceVeil_InvertPicture": {"steps": 4},
        "CheckpointLoaderSimple": {"ckpt_name": f"{family}.safetensors"},
        "FaceVeil_LoadFaceID": {"adapter": f"ip-adapter-faceid_{family}.bin"},
    }
    template = WORKFLOWS / f"anonymize-by-inversion-{family}.json"
    found = run_template(template, nodes, changed, {"FaceVeil_LoadRecognizer": (stand,)})
    before, (after, mask) = found["FaceVeil_SamplePortrait"][0], found["FaceVeil_PasteFaces"]
    assert torch.equal(after[mask == 0], before[mask == 0]) and (after - before)[mask > 0].abs().mean() > 0.05
    assert bool(torch.isfinite(after).all())


def test_the_inpainting_template_runs(nodes, files, loaded) -> None:
    """A random checkpoint draws no face: whatever the recognizers say, the original does not come back."""
    family, _ = files
    changed = {
        "FaceVeil_CropFaces": {"size": 64},
        "FaceVeil_VeilFaces": {"method": {"method": "appearance", "search": 2}},
        "BasicScheduler": {"steps": 2},
        "FaceVeil_RetryUntilDifferent": {"tries": 2},
        "CheckpointLoaderSimple": {"ckpt_name": f"{family}.safetensors"},
    }
    found = run_template(WORKFLOWS / f"inpaint-a-new-face-{family}.json", nodes, changed, {})
    report = json.loads(found["FaceVeil_RetryUntilDifferent"][2])
    assert [face["outcome"] for face in report["faces"]] in (["replaced"], ["redacted"])
    before, (after, mask) = found["FaceVeil_SamplePortrait"][0], found["FaceVeil_PasteFaces"]
    assert (after - before)[mask > 0.99].abs().mean() > 0.05
