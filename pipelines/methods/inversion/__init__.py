"""Anonymization by inversion with any Stable Diffusion 1.5 or SDXL checkpoint and IP-Adapter FaceID.

NullFace (Kung et al., FG 2026) and Reverse Personalization (Kung et al., WACV 2026)
invert a picture into noise, and denoise it away from the person's identity embedding. Nothing is trained.

| what | code |
|---|---|
| identity tokens, and the adapter's weights for each attention layer | ``adapter.FaceIdAdapter`` |
| the second attention, to the identity tokens | ``attention.FaceIdProcessor`` |
| the rows of a denoiser: which text and which identity | ``denoiser`` |
| NullFace: edit-friendly DDPM inversion, and generation | ``nullface.invert``, ``nullface.generate`` |
| Reverse Personalization: second-order SDE-DPM-Solver++ | ``reverse.invert``, ``reverse.generate`` |
| strength to guidance and skip | ``dials`` |
| the networks of a checkpoint, with diffusers | ``checkpoint``, ``text``, ``pipeline`` |
"""
