// Shows what a FaceVeil node found or did as a read-only text on the node. The host's own text preview is not shown by
// older frontends.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const PREFIX = "FaceVeil_";
const WIDGET = "result";
const LINE_HEIGHT = 18;
const MAX_LINES = 8;

function textWidget(node) {
  const known = node.widgets?.find((widget) => widget.name === WIDGET);
  if (known) return known;
  const { widget } = ComfyWidgets.STRING(node, WIDGET, ["STRING", { multiline: true }], app);
  if (widget.inputEl) widget.inputEl.readOnly = true;
  // Neither part of the workflow file nor of the prompt: it is no input.
  widget.serialize = false;
  widget.options = { ...widget.options, serialize: false, read_only: true };
  return widget;
}

function show(node, text) {
  const widget = textWidget(node);
  widget.value = text;
  const lines = Math.min(MAX_LINES, text.split("\n").length + 1);
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height + lines * LINE_HEIGHT)]);
  app.graph?.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "FaceVeil.Text",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name?.startsWith(PREFIX)) return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      const text = output?.text;
      if (text) show(this, Array.isArray(text) ? text.join("") : String(text));
    };
  },
});
