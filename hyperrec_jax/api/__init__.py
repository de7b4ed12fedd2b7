"""What a notebook imports: `prepare` a frame, `fit` or `load` a `Model`.

The names stand in `hyperrec_jax` itself; importing them there loads the training code only where it
is needed.
"""
