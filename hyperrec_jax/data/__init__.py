"""Sources -> columnar store -> batches."""
