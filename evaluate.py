"""Scores a trained model over a grid of preferences: `hyperrec evaluate`, from a checkout.

    python evaluate.py --workdir runs/aliexpress_us

See `hyperrec_jax/commands/evaluate.py`.
"""

from hyperrec_jax.commands import cli, evaluate

if __name__ == "__main__":
    cli.exit_on_user_error(evaluate.main)
