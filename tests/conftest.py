"""Pictures that tests share: the public-domain portrait always, real photos where the data folder is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Faces
from faceveil.pipelines.images import picture_from
from faceveil.pipelines.sample import astronaut, group
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def portrait() -> Tensor:
    """``(1, 3, 512, 512)``."""
    return picture_from(astronaut()).pixels


@pytest.fixture(scope="session")
def trio() -> Tensor:
    """Three faces, ``(1, 3, 512, 1120)``."""
    return picture_from(group()).pixels


@pytest.fixture(scope="session")
def portrait_faces(portrait: Tensor) -> Faces:
    return detect_faces(portrait)


@pytest.fixture(scope="session")
def trio_faces(trio: Tensor) -> Faces:
    return detect_faces(trio)


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    found = sorted((DATA / "photos").glob("*.jpg"))
    if not found:
        pytest.skip("no ../shared/data/photos beside the repository")
    return found


@pytest.fixture(autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)
