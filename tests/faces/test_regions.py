"""Masks of the parts of a face, by landmarks and by a SegFormer folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.faces.parse import CLASSES, NAMES, open_parser
from faceveil.pipelines.faces.regions import REGIONS, region_masks


def test_landmarks_give_every_region(portrait, portrait_faces):
    points = portrait_faces[0].points
    masks = region_masks(portrait, points, tuple(REGIONS))
    assert set(masks) == set(REGIONS)
    for name, group in (("eyes", slice(36, 48)), ("mouth", slice(48, 60)), ("brows", slice(17, 27))):
        ys, xs = torch.nonzero(masks[name][0, 0] > 0.5, as_tuple=True)
        middle = points[group].mean(0)
        assert np.allclose([float(xs.float().mean()), float(ys.float().mean())], middle, atol=6), name
    both = torch.minimum(masks["skin"], masks["eyes"])
    assert float(both.max()) < 0.6
    assert float(masks["glasses"].sum()) == 0


@pytest.fixture
def segformer(tmp_path):
    """A tiny SegFormer with random weights whose classes are in another order."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    order = list(np.random.default_rng(0).permutation(CLASSES))
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[8, 4],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=CLASSES,
        id2label={i: NAMES[k] for i, k in enumerate(order)},
        label2id={NAMES[k]: i for i, k in enumerate(order)},
    )
    network = SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path / "parser")
    return tmp_path / "parser", network, order


@pytest.mark.parametrize("whole", [True, False])
def test_a_segformer_s_classes_are_brought_into_our_order(segformer, whole):
    folder, network, order = segformer
    parser = open_parser(folder if whole else folder / "model.safetensors")
    view = torch.randn(1, 3, 512, 512)
    found = parser.probabilities(view)
    assert found.shape == (1, CLASSES, 512, 512)
    assert torch.allclose(found.sum(1), torch.ones(()), atol=1e-4)
    with torch.no_grad():
        logits = network(view).logits
    wanted = torch.nn.functional.interpolate(logits, (512, 512), mode="bilinear", align_corners=False).softmax(1)
    for place, label in enumerate(order):
        torch.testing.assert_close(found[:, label], wanted[:, place], atol=1e-5, rtol=0)


def test_damaged_and_foreign_folders_are_refused(segformer, tmp_path):
    folder, _, _ = segformer
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="empty"):
        open_parser(tmp_path / "empty")
    config = folder / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"skin"', '"wheel"'), encoding="utf-8")
    with pytest.raises(WeightsError, match="19 classes"):
        open_parser(folder)
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="SegFormer"):
        open_parser(folder)


def test_a_segformer_without_its_weights_is_refused(segformer):
    from safetensors.torch import load_file, save_file

    folder, _, _ = segformer
    path = folder / "model.safetensors"
    tensors = load_file(str(path))
    save_file({k: v for k, v in tensors.items() if "decode_head" not in k}, str(path), {"format": "pt"})
    with pytest.raises(WeightsError, match="incomplete or of another network"):
        open_parser(folder)
