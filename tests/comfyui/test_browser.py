"""What is seen in the browser: runs where playwright and a Chromium are installed, and is skipped elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 120_000
"""Milliseconds."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        # Nothing but the local server is asked.
        context.route("**/*", lambda route: route.continue_() if server.url in route.request.url else route.abort())
        opened = context.new_page()
        opened.goto(f"http://{server.url}", wait_until="domcontentloaded", timeout=PATIENCE)
        opened.wait_for_function("() => window.app?.graph && window.app.extensionManager", timeout=PATIENCE)
        opened.wait_for_timeout(3000)
        opened.keyboard.press("Escape")
        yield opened
        browser.close()


def queue(page: Any, workflow: str) -> None:
    """Load a template of the pack and run it as the button does."""
    graph = json.loads((ROOT / "workflows" / f"{workflow}.json").read_text(encoding="utf-8"))
    page.evaluate("graph => window.app.loadGraphData(graph)", graph)
    page.wait_for_timeout(1000)
    page.evaluate("() => window.app.queuePrompt(0, 1)")


TEXT_OF = """kind => {
  const node = window.app.graph._nodes.find((node) => node.type === kind);
  return node?.widgets?.find((widget) => widget.name === "result")?.value || "";
}"""


def test_veil_faces_says_on_the_node_what_it_did(page: Any) -> None:
    queue(page, "veil-one-portrait")
    page.wait_for_function(f"kind => ({TEXT_OF})(kind).length > 0", arg="FaceVeil_VeilFaces", timeout=PATIENCE)
    assert page.evaluate(TEXT_OF, "FaceVeil_VeilFaces").startswith("1 face: 1 replaced")


def test_an_error_shows_our_sentence(page: Any) -> None:
    queue(page, "veil-one-portrait")
    # The same run again with a policy that stops at an image without a face.
    page.evaluate(
        """() => {
          const node = window.app.graph._nodes.find((node) => node.type === "FaceVeil_VeilFaces");
          const source = LiteGraph.createNode("EmptyImage");
          window.app.graph.add(source);
          source.connect(0, node, node.findInputSlot("image"));
          node.widgets.find((widget) => widget.name === "no_face").value = "stop";
        }"""
    )
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    details = page.get_by_role("button", name="View details")
    sentence = page.get_by_text("no face was found").first
    # Older frontends open the dialog at once.
    details.or_(sentence).first.wait_for(timeout=PATIENCE)
    if details.is_visible():
        details.click()
    sentence.wait_for(timeout=PATIENCE)


def test_the_text_is_not_saved_in_the_workflow(page: Any) -> None:
    queue(page, "veil-one-portrait")
    page.wait_for_function(f"kind => ({TEXT_OF})(kind).length > 0", arg="FaceVeil_VeilFaces", timeout=PATIENCE)
    saved = page.evaluate("() => JSON.stringify(window.app.graph.serialize())")
    assert "1 replaced" not in saved
