"""DiffDeID: multi-condition diffusion for face de-identification, of images and of video by reenactment.

| paper | code |
|---|---|
| identity sampler, Eq. 2 and 3; levels 1 to 10 | ``identity.lds``, ``training.sampler`` |
| coefficients p, section 3.1 | ``geometry.coefficients.DIFFDEID``, ``geometry.gaze`` |
| identity-masked image I_m, rendered face I_3d | ``conditions.masked_image``, ``conditions.render_face`` |
| texture attention, Eq. 5 and 6 | ``network.TextureAttention`` |
| AdaIN, Eq. 7; C = z'_id + Linear(p') + Linear(t) | ``network.AdaIN``, ``network.Denoiser`` |
| losses, Eq. 8 to 11 | ``training.Objective`` |
| sampling of images | ``pipeline.DiffDeIDPipeline``, ``method.DiffDeIDMethod`` |
| video, section 3.4 | ``video.Reenactment`` |

Where the paper is silent or illegible, the modules say what was chosen.
"""
