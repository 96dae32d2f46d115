"""What makes a face unsuitable for training: glasses, bangs and harsh light."""

from __future__ import annotations

from dataclasses import dataclass

from ...imaging.resample import blur
from .canonical import CanonicalSpace
from .shading import Decomposer, Decomposition

HARSH_CONTRAST, HARSH_SIDE, HARSH_COLOR = 0.34, 0.55, 0.10
"""Standard deviations over the face that count as harsh light: of the log shading, of its difference between left and
right, and of the detail's log color on the skin."""


@dataclass(frozen=True)
class Plainness:
    """How plain a face is; 0 is plainest.

    Attributes:
        glasses: edge strength between the brows and under the eyes, high with glasses.
        bangs: brightness variation of the forehead, high with bangs.
        harshness: of the light; above 1, the light is directional or colored.
    """

    glasses: float
    bangs: float
    harshness: float

    @classmethod
    def of(cls, decomposer: Decomposer, decomposition: Decomposition) -> Plainness:
        """Measure a face that ``decomposer`` decomposed."""
        zones, lightness = decomposer.zones, decomposition.lightness
        slope = (blur(lightness[None, None], 1.0)[0, 0]).diff(dim=0, append=lightness[-1:]).abs() * 4
        between, under = (slope[zones[name]] for name in ("between brows", "under eyes"))
        forehead, cheek = lightness[zones["forehead"]], lightness[zones["cheeks"]].median()
        bangs = ((forehead - forehead.median()).abs() > 12).float().mean() + (forehead - cheek).abs().mean() / 60
        return cls(
            glasses=float(between.quantile(0.90) + 0.7 * under.quantile(0.92)),
            bangs=float(bangs),
            harshness=_harshness(decomposer.canonical, decomposition),
        )


def _harshness(canonical: CanonicalSpace, decomposition: Decomposition) -> float:
    core, skin = canonical.core[0, 0] > 0.5, canonical.skin[0, 0] > 0.5
    shading = decomposition.shading.mean(1)[0]
    color = (decomposition.detail - decomposition.detail.mean(1, keepdim=True))[0]
    return max(
        float(shading[core].std()) / HARSH_CONTRAST,
        float((shading - shading.flip(-1))[core].std()) / HARSH_SIDE,
        float(color[:, skin].std()) / HARSH_COLOR,
    )
