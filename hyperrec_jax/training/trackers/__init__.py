"""Where a run is shown: TensorBoard, MLflow, Weights & Biases, one small file each.

A module here registers a constructor that takes a run's folder, its config and the step that it
begins at, and returns a `Tracker`.
"""
