"""`python -m hyperrec_jax COMMAND` is `hyperrec COMMAND`."""

import sys

from hyperrec_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
