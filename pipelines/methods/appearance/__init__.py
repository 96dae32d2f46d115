"""The embedded default of this project: warp the shape and multiply the texture. There is no paper.

| step | code |
|---|---|
| 1. canonical space: the face without pose, expression and light | ``render.prepare``, ``canonical.CanonicalSpace`` |
| 2. model: shape and texture of synthetic people | ``network.AppearanceModel``, ``latent.appearance_of`` |
| 3. search: strangers of similar traits | ``strangers.strangers`` |
| their parts, combined to new people | ``mixing.Mixer`` |
| forecasts of distance and naturalness | ``forecast.Forecaster``, ``jacobian``, ``natural.Naturalness`` |
| the least change that is still needed, rendered and measured | ``step.Stepper``, ``search.search`` |
| 4. rendering into the image: thin-plate warp and texture ratio | ``render.render``, ``render.warp_field`` |
| rotated heads, occlusion and limits | ``rotated.RotatedFace``, ``occlusion.is_occluded``, ``method`` |
| training | ``training``, ``jacobian_training`` |
| the built-in 3D morphable model, computed from this one | ``morphable.morphable_model_of`` |
"""
