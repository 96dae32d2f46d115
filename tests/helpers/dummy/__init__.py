"""The smallest method: it paints faces in one color. Tests put it beside the real ones."""
