"""Recognizers: tensor names, reference outputs, weights files, thresholds."""

from __future__ import annotations

import functools
import hashlib
import http.server
import math
import threading

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.compare import recognizer_named
from faceveil.pipelines.jobs.people import embed_identities
from faceveil.pipelines.recognition.catalog import open_recognizer
from faceveil.pipelines.recognition.facenet import InceptionResnetV1
from faceveil.pipelines.recognition.farl import HEADS, LAYERS, SIDE, WIDTH, FaRL, from_clip
from faceveil.pipelines.recognition.thresholds import measure_threshold, threshold_of
from faceveil.weights.catalog import Card
from faceveil.weights.fetch import fetch
from safetensors.torch import save_file
from torch.nn import functional


def formula_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute weights from a formula of tensor index and shape, so that other implementations can use the same ones."""
    weights = {}
    for i, (key, value) in enumerate(sorted(state.items())):
        if not value.dtype.is_floating_point:
            weights[key] = value
            continue
        count = value.numel()
        noise = torch.frac(torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898 + i) * 43758.5453).abs()
        if key.endswith("running_var") or (value.dim() == 1 and key.endswith("weight")):
            noise = 0.5 + noise
        elif value.dim() > 1:
            noise = (noise - 0.5) * 2 * math.sqrt(3 / (count / value.shape[0]))
        else:
            noise = (noise - 0.5) * 0.2
        weights[key] = noise.reshape(value.shape).float()
    return weights


@pytest.fixture(scope="module")
def facenet() -> InceptionResnetV1:
    net = InceptionResnetV1().eval().requires_grad_(False)
    net.load_state_dict(formula_weights(net.state_dict()))
    return net


def test_facenet_has_the_published_tensor_names(facenet) -> None:
    """Compare a hash of all names and shapes of facenet-pytorch's InceptionResnetV1 without its classifier."""
    listing = "\n".join(f"{k} {tuple(v.shape)}" for k, v in sorted(facenet.state_dict().items()))
    assert (
        hashlib.sha256(listing.encode()).hexdigest()
        == "c0638fa983a7cf513cd2dfb4310e1e627f43ae2e6bcbe857010cd3b37e3c5b1c"
    )


def test_facenet_equals_the_reference(facenet) -> None:
    """Compare with the output of facenet-pytorch 2.5 for the same weights and input."""
    image = (
        torch.frac(torch.sin(torch.arange(3 * 160 * 160, dtype=torch.float64) * 78.233) * 43758.5453)
        .reshape(1, 3, 160, 160)
        .float()
    )
    vector = facenet(image)[0]
    assert (vector[:5] - torch.tensor([-0.0175, -0.0323, 0.0054, -0.1066, -0.0450])).abs().max() < 6e-5
    assert abs(float(vector.abs().sum()) - 16.7003) < 1e-3


def test_facenet_opens_its_files(facenet, tmp_path, portrait, portrait_faces) -> None:
    torch.save(
        facenet.state_dict() | {"logits.weight": torch.zeros(3, 512), "logits.bias": torch.zeros(3)},
        tmp_path / "20180402-114759-vggface2.pt",
    )
    save_file(facenet.state_dict(), str(tmp_path / "20180408-102900-casia-webface.safetensors"))
    a, b = (
        open_recognizer("facenet", tmp_path / "20180402-114759-vggface2.pt"),
        recognizer_named(f"facenet:{tmp_path / '20180408-102900-casia-webface.safetensors'}"),
    )
    assert (a.name, b.name, a.threshold) == ("facenet-vggface2", "facenet-casia", 1.1)
    vectors = [r.embed(portrait, portrait_faces[0].points) for r in (a, b)]
    assert np.allclose(*vectors) and abs(np.linalg.norm(vectors[0]) - 1) < 1e-6
    with pytest.raises(InputError, match="cannot be mixed"):
        embed_identities(portrait, portrait_faces, a).cosine(embed_identities(portrait, portrait_faces, b))


def clip_state() -> dict[str, torch.Tensor]:
    """Random weights with the tensor names of OpenAI's CLIP."""
    shapes = {
        "class_embedding": (WIDTH,),
        "positional_embedding": (197, WIDTH),
        "proj": (WIDTH, 512),
        "conv1.weight": (WIDTH, 3, 16, 16),
        "ln_pre.weight": (WIDTH,),
        "ln_pre.bias": (WIDTH,),
        "ln_post.weight": (WIDTH,),
        "ln_post.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        block = {
            "attn.in_proj_weight": (3 * WIDTH, WIDTH),
            "attn.in_proj_bias": (3 * WIDTH,),
            "attn.out_proj.weight": (WIDTH, WIDTH),
            "attn.out_proj.bias": (WIDTH,),
            "ln_1.weight": (WIDTH,),
            "ln_1.bias": (WIDTH,),
            "ln_2.weight": (WIDTH,),
            "ln_2.bias": (WIDTH,),
            "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
            "mlp.c_fc.bias": (4 * WIDTH,),
            "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
            "mlp.c_proj.bias": (WIDTH,),
        }
        shapes |= {f"transformer.resblocks.{i}.{k}": v for k, v in block.items()}
    generator = torch.Generator().manual_seed(0)
    state = {
        f"visual.{k}": torch.randn(v, generator=generator) * (0.02 if len(v) > 1 else 0.1) for k, v in shapes.items()
    }
    return state | {"logit_scale": torch.tensor(1.0), "token_embedding.weight": torch.zeros(4, 4)}


def clip_forward(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Run the image encoder of OpenAI's CLIP, written with plain torch functions."""
    v = {k.removeprefix("visual."): t for k, t in state.items()}

    def norm(x, name):
        return functional.layer_norm(x, (WIDTH,), v[f"{name}.weight"], v[f"{name}.bias"])

    x = functional.conv2d(image, v["conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    x = norm(torch.cat([v["class_embedding"].expand(1, 1, -1), x], 1) + v["positional_embedding"], "ln_pre")
    for i in range(LAYERS):
        block = f"transformer.resblocks.{i}"
        q, k, val = functional.linear(
            norm(x, f"{block}.ln_1"), v[f"{block}.attn.in_proj_weight"], v[f"{block}.attn.in_proj_bias"]
        ).chunk(3, -1)
        heads = [t.reshape(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for t in (q, k, val)]
        x = x + functional.linear(
            functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2),
            v[f"{block}.attn.out_proj.weight"],
            v[f"{block}.attn.out_proj.bias"],
        )
        hidden = functional.linear(norm(x, f"{block}.ln_2"), v[f"{block}.mlp.c_fc.weight"], v[f"{block}.mlp.c_fc.bias"])
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        x = x + functional.linear(hidden, v[f"{block}.mlp.c_proj.weight"], v[f"{block}.mlp.c_proj.bias"])
    return norm(x[:, 0], "ln_post") @ v["proj"]


def test_farl_equals_openai_clip(tmp_path, portrait, portrait_faces) -> None:
    pytest.importorskip("transformers")
    state = clip_state()
    torch.save({"state_dict": state}, tmp_path / "FaRL-Base-Patch16-LAIONFace20M-ep64.pth")
    farl = open_recognizer("farl", tmp_path / "FaRL-Base-Patch16-LAIONFace20M-ep64.pth")
    assert isinstance(farl, FaRL) and farl.name == "farl-ep64"
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output, reference = farl._network(pixel_values=image).image_embeds, clip_forward(state, image)
    assert (output - reference).abs().max() < 1e-4 * reference.abs().max()
    assert farl.embed(portrait, portrait_faces[0].points).shape == (512,)
    with pytest.raises(InputError, match="no threshold is known for farl-ep64"):
        _ = farl.threshold
    with pytest.raises(KeyError):
        from_clip({"visual.proj": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ("kind", "name"), [("adaface", "adaface_ir_18"), ("sphereface", "sphere20"), ("mobileface", "mobilenetv2")]
)
def test_uniface_recognizers_are_downloaded_checked_and_run(
    tmp_path, w600k, portrait, portrait_faces, monkeypatch, kind, name
) -> None:
    """Download a random network of the right input and output shapes from a local server, as a user would."""
    constants = pytest.importorskip("uniface.constants")
    served = tmp_path / "served"
    served.mkdir()
    data = w600k.read_bytes()
    (served / f"{name}.onnx").write_bytes(data)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sha = hashlib.sha256(data).hexdigest()
    card = Card(
        name,
        f"{name}.onnx",
        "faceveil",
        "here",
        "1",
        "MIT",
        "a test",
        f"http://127.0.0.1:{server.server_port}/{name}.onnx",
        sha,
        len(data),
    )
    path = fetch(card, tmp_path / "models", consent=True)
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsError, match="not the original file of uniface"):
        open_recognizer(kind, path)
    weights = next(w for w in constants.MODEL_REGISTRY if w.value == name)
    monkeypatch.setitem(
        constants.MODEL_REGISTRY,
        weights,
        type(constants.MODEL_REGISTRY[weights])(url=f"https://example.org/{name}.onnx", sha256=sha),
    )
    recognizer = open_recognizer(kind, path)
    vector = recognizer.embed(portrait, portrait_faces[0].points)
    arcface = open_recognizer("arcface", w600k).embed(portrait, portrait_faces[0].points)
    assert recognizer.name == (
        name if kind == "adaface" else f"{kind}-{name}"
    ) and recognizer.threshold == pytest.approx(1.2)
    # AdaFace takes BGR, the others RGB as ArcFace does.
    assert (vector @ arcface > 0.9999) == (kind != "adaface")


@pytest.mark.parametrize("kind", ["adaface", "arcface", "facenet", "farl"])
def test_bad_files_raise_a_one_line_error(tmp_path, kind) -> None:
    for name, data in (("cut.pt", b"1234"), ("cut.onnx", b"1234"), ("cut.safetensors", b"1234")):
        (tmp_path / name).write_bytes(data)
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "code.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save({"state_dict": {"a": 3}}, tmp_path / "numbers.pt")
    for name in ("cut.pt", "cut.onnx", "cut.safetensors", "code.pt", "other.pt", "numbers.pt", "gone.pt", "gone.onnx"):
        with pytest.raises(WeightsError) as caught:
            open_recognizer(kind, tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="needs a weights file"):
        open_recognizer(kind)


def test_unknown_recognizers_raise() -> None:
    with pytest.raises(InputError, match="'eigenfaces' is not one of dlib, faceveil, arcface"):
        recognizer_named("eigenfaces")
    with pytest.raises(InputError, match="no threshold is known"):
        threshold_of("eigenfaces")


def test_measured_thresholds_have_the_requested_false_match_rate() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)[np.triu_indices(300, 1)]
    assert np.mean(distances < measure_threshold(vectors, 0.01)) == pytest.approx(0.01, abs=1e-4)
    with pytest.raises(InputError, match=r"too few for a false-match rate of 0\.0001"):
        measure_threshold(vectors, 1e-4)
