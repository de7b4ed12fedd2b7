"""Entire-space multi-task model (Ma et al. 2018, SIGIR), for goals along a funnel."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from flax.typing import Array
from scipy.special import expit

from hyperrec_jax.goals.binary import log_odds
from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.logits import product_logits


@register("esmm")
class ESMM(MultiTaskModel):
    """Shared embedding, one network for each goal; a probability is a factor of all that follow.

    With click and conversion the two networks give pCTR and pCVR, and the model answers with the
    logits of pCTR and of pCTCVR = pCTR * pCVR, which both have labels on all impressions.
    """

    funnel: ClassVar[Literal["no", "usual", "needed"]] = "needed"
    binary_only: ClassVar[bool] = True

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.bottoms = self.new_bank(self.num_towers, self.bottom_widths)
        self.towers = self.new_towers()

    def with_prior(
        self, params: Mapping[str, Any], constants: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """As all models, by the rate of each event among the rows of the one before it."""
        rates = expit(np.concatenate(constants))
        before = np.concatenate([[1.0], rates[:-1]])
        steps = [np.array([log_odds(rate)]) for rate in rates / before]
        return super().with_prior(params, steps)

    def encode(self, batch: Batch, train: bool) -> Array:
        """Each goal's representation, `[goal, batch, width]`."""
        return self.bottoms(self.mark_shared(self.embedding(batch)), train)

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]` of the products up to each goal."""
        del preference
        return product_logits(self.to_logits(self.towers(tuple(features), train)))
