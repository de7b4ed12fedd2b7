"""The page on which a person moves the preference."""
