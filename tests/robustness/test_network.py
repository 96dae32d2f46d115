"""No connection and no look-up of a name, recorded in place of the C library's own functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static void record(const char *what, const char *detail) {
  FILE *file = fopen(getenv("FACEVEIL_TRACE"), "a");
  if (file) { fprintf(file, "%s %s\n", what, detail ? detail : ""); fclose(file); }
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
  static int (*original)(int, const struct sockaddr *, socklen_t);
  if (!original) original = dlsym(RTLD_NEXT, "connect");
  if (address && (address->sa_family == AF_INET || address->sa_family == AF_INET6)) record("connect", 0);
  return original(socket, address, length);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
  static int (*original)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  if (!original) original = dlsym(RTLD_NEXT, "getaddrinfo");
  record("look-up", node);
  return original(node, service, hints, result);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for LD_PRELOAD."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("tracing needs Linux and gcc")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"], check=True)
    return library


def traced(shim: Path, folder: Path, code: str) -> list[str]:
    """Network calls of a Python process."""
    trace = folder / "trace.txt"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "HF_", "DO_NOT"))}
    environment |= {"LD_PRELOAD": str(shim), "FACEVEIL_TRACE": str(trace), "HOME": str(folder)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True, capture_output=True)
    return trace.read_text().splitlines() if trace.is_file() else []


def test_the_trace_notices_a_connection(shim, tmp_path) -> None:
    code = "import socket\ntry: socket.create_connection(('localhost', 9))\nexcept OSError: pass"
    calls = traced(shim, tmp_path, code)
    assert "look-up localhost" in calls and any(call.startswith("connect") for call in calls)


def test_the_main_job_uses_no_network(shim, tmp_path, portrait_file) -> None:
    code = (
        "from faceveil.pipelines.cli import main\n"
        f"assert main(['anonymize', {str(portrait_file)!r}, '-o', 'out.png', '--appearance-search', '1']) == 0\n"
        "import time; time.sleep(3)"
    )
    assert traced(shim, tmp_path, code) == []
    assert (tmp_path / "out.png").is_file()
    # A device id would be kept in the home folder.
    assert not [p for p in tmp_path.rglob("*") if "microsoft" in p.name.lower() or "onnx" in p.name.lower()]


def test_dependencies_that_are_imported_use_no_network(shim, tmp_path) -> None:
    code = (
        "import faceveil.pipelines\n"
        "import onnxruntime, diffusers, transformers, insightface, uniface, kornia, time\n"
        "time.sleep(3)"
    )
    assert traced(shim, tmp_path, code) == []
