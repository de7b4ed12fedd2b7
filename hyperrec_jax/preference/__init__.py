"""The formula of a step: sampled preferences, normalised losses, objectives."""
