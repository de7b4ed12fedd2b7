"""Options: defaults, presets, overrides, and their resolution into the parts of a run."""
