"""`python -m evaluators`: one trial by itself, with nothing but torch, numpy and (for some tasks) transformers."""

import sys

from evaluators.cli import main

if __name__ == "__main__":
    sys.exit(main())
