"""One small file a dataset, over the shared defaults of `base.py`."""
