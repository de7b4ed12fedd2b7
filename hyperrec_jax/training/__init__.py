"""The functional training loop: state, pure step, loop, checkpoints, sharding."""
