"""IDEudemon: divide and conquer for face de-identification with a parametric 3D head and a face restorer.

| paper | code |
|---|---|
| HeadNeRF, the parametric head | ``headnerf.HeadNeRF``, ``cameras``, ``checkpoint`` |
| step I: fitting | ``fitting.fit_head``; a mesh model: ``geometry.fitting`` |
| step I: identity protection, section 3.2 | ``protect.protected_codes``, ``protect.protected_coefficients`` |
| step I: drawing | ``drawing.HeadPainter``; a mesh model: ``mesh.redraw_face``, ``mesh.warp_face`` |
| step II: visual similarity assistance | ``hybrid.hybrid_image``, ``hybrid.fill_gaps``, ``faces.regions`` |
| step II: restoration | ``restorer``; GFPGAN and others: ``imaging.upscale`` |
| losses, Eq. 5 to 9 | ``training.Objective``, ``discriminators`` |

HeadNeRF's weights are for non-commercial research, and nobody has published IDEudemon's. Therefore the same two steps
also run on our own 3D model and with our own small restorer, which come with the package.
"""
