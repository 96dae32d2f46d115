"""The computation: plain torch, never imports ComfyUI."""
