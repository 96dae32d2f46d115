"""A new method is one package: every interface finds it without another edit."""

from __future__ import annotations

import pytest
from faceveil.pipelines.cli import main, parser
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.core.options import options_of
from faceveil.pipelines.methods.registry import method_spec, method_specs, open_method
from PIL import Image


def test_the_command_line_finds_it(dummy, portrait_file, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["anonymize", "--help"])
    help_text = capsys.readouterr().out
    assert "method dummy (A dummy)" in help_text and "--dummy-red" in help_text
    out = tmp_path / "out.png"
    arguments = ["anonymize", str(portrait_file), "-o", str(out), "--method", dummy, "--dummy-red", "0.5"]
    assert main([*arguments, "--policy", "pass"]) == OK
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
