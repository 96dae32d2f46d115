"""Face Anonymization Made Simple (Kung, Varanka, Saha, Sim and Sebe, WACV 2025).

| paper | code |
|---|---|
| section 3.2, states of the ReferenceNets in the denoiser's self-attention | ``attention.WriteState``, ``ReadStates`` |
| section 3.2, the source and the driving ReferenceNet | ``network.ReferenceNet`` |
| Eq. 1, Z' = (1 - d) Z | ``network.weaken`` |
| Eq. 2, S' = (1 - d) S + d S_uncond | ``network.mix`` |
| sampling and classifier-free guidance | ``pipeline.ReferenceNetPipeline`` |
| section 3.4, training from triplets | ``triplets.build_triplets``, ``training.train`` |
"""
