"""A new method is one package: every interface finds it without another edit."""

from __future__ import annotations

import sys
from pathlib import Path

import faceveil.pipelines.methods
import pytest
from faceveil.pipelines.cli import main, parser
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.core.options import options_of
from faceveil.pipelines.methods.registry import method_spec, method_specs, open_method
from PIL import Image

SPEC = """
from dataclasses import dataclass

from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.core.options import check_options, option
from faceveil.pipelines.methods.registry import MethodSpec
from faceveil.pipelines.training.spec import TrainerSpec


@dataclass(frozen=True)
class Options:
    red: float = option(1.0, "How red.", minimum=0.0, maximum=1.0)

    def __post_init__(self):
        check_options(self)


def _open(options):
    from .method import Paint

    return Paint(options.red)


def _check():
    raise WeightsError("the paint is missing; buy some")


SPEC = MethodSpec(
    name="dummy",
    title="A dummy",
    summary="Paints faces red.",
    options=Options,
    open=_open,
    check=_check,
    trainers=(TrainerSpec("dummy", "nothing", Options, lambda options, progress: f"learned {options.red}"),),
)
"""
METHOD = """
import torch
from faceveil.pipelines.methods.base import Change
from faceveil.pipelines.methods.identities import MethodIdentity


class Paint:
    name = "dummy"

    def __init__(self, red):
        self.red = red

    def unsupported_reason(self, face):
        return None

    def prepare(self, view):
        return view

    def occlusion_reason(self, prepared):
        return None

    def sample_identity(self, prepared, seed, progress):
        return MethodIdentity(self.name, seed)

    def from_identity(self, prepared, identity, seed, progress):
        return MethodIdentity(self.name, seed, identity)

    def render(self, view, identity, strength, progress):
        x1, y1, x2, y2 = (int(v) for v in view.face.box)
        patch = view.image[..., y1:y2, x1:x2] * 0
        patch[:, 0] = self.red
        return Change(patch, (x1, y1), torch.ones_like(patch[:, :1]), view.face.points)
"""


@pytest.fixture
def dummy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A method in a temporary package beside the others."""
    package = tmp_path / "more" / "dummy"
    package.mkdir(parents=True)
    for name, text in (("__init__", ""), ("spec", SPEC), ("method", METHOD)):
        (package / f"{name}.py").write_text(text)
    methods = faceveil.pipelines.methods
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(package.parent)])
    yield "dummy"
    for name in [n for n in sys.modules if n.startswith(f"{methods.__name__}.dummy")]:
        del sys.modules[name]
    methods.__dict__.pop("dummy", None)


def test_the_command_line_finds_it(dummy, portrait_file, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["anonymize", "--help"])
    help_text = capsys.readouterr().out
    assert "method dummy (A dummy)" in help_text and "--dummy-red" in help_text
    out = tmp_path / "out.png"
    arguments = ["anonymize", str(portrait_file), "-o", str(out), "--method", dummy, "--dummy-red", "0.5"]
    assert main([*arguments, "--policy", "pass"]) in (0, 3)
    assert Image.open(out).getpixel((225, 115)) == (128, 0, 0)
    assert main([*arguments[:-1], "7", "--overwrite"]) == SOME_FAILED
    assert "red must be at least 0 and at most 1, got 7.0" in capsys.readouterr().err
    assert main(["train", "dummy", "--red", "0.25"]) == OK
    assert "learned 0.25" in capsys.readouterr().out


def test_doctor_reports_it(dummy, capsys) -> None:
    assert main(["doctor"]) == OK
    assert "absent  method dummy: the paint is missing; buy some" in capsys.readouterr().out


def test_python_opens_it(dummy) -> None:
    assert open_method(dummy).red == 1.0
    with pytest.raises(InputError, match="red must be at least 0"):
        method_spec(dummy).options(red=-1.0)


def test_it_is_gone_again_without_its_package() -> None:
    assert "dummy" not in method_specs()
    with pytest.raises(InputError, match="method 'dummy' is not one of appearance"):
        open_method("dummy")


def test_every_method_says_what_it_is() -> None:
    specs = method_specs()
    assert next(iter(specs)) == "appearance"
    for name, spec in specs.items():
        assert spec.name == name and spec.summary.endswith(".") and spec.title
        for o in options_of(spec.options):
            assert o.help.endswith("."), f"{name}: {o.name}"
