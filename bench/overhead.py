"""The earlier name of `python -m bench.speed`, which published figures give as their command."""

import sys

from bench.speed.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
