"""IDDiffuse: dual-conditional diffusion for consistent synthetic identities.

| paper | code |
|---|---|
| ensemble identity, section 3.1 | ``identity.ensemble``, ``training.ensemble`` |
| banks of synthetic people, the mapping f | ``identity.bank`` |
| identity condition E_I | ``conditions.IdentityEncoder`` |
| texture condition E_t, patch statistics | ``conditions.TextureEncoder``, ``conditions.patch_statistics`` |
| attention with condition tokens, Eq. 8 | ``unet.AttentionBlock`` |
| losses, Eq. 7, and its schedules of gamma | ``training.Objective``, ``training.gamma_of`` |
| sampling, and gamma as a dial | ``pipeline.IDDiffusePipeline``, ``conditions.blended`` |

DCFace, on which the paper builds, has the same network; ``dcface`` reads the U-Net of its public checkpoints. Eq. 7
contradicts the paper's text; ``training`` says how it is read.
"""
