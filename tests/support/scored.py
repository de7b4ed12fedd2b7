"""Labels with scores, for properties of metrics."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def scored(draw: st.DrawFn, both_classes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Labels and float32 scores with many ties."""
    rows = draw(st.integers(2, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = generator.random(rows) < draw(st.floats(0.05, 0.95))
    if both_classes:
        labels[:2] = [True, False]
    levels = draw(st.sampled_from([2, 5, 10**6]))
    scores = generator.integers(-levels, levels, rows).astype(np.float32) * np.float32(0.37)
    return labels.astype(np.uint8), scores
