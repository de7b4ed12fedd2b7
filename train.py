"""Trains one model for all preferences: `hyperrec train`, from a checkout.

    python train.py --config configs/aliexpress_us.py --workdir runs/aliexpress_us

See `hyperrec_jax/commands/train.py`.
"""

from hyperrec_jax.commands import cli, train

if __name__ == "__main__":
    cli.exit_on_user_error(train.main)
