"""`python -m divulge`."""

import sys

from divulge.cli import main

if __name__ == "__main__":
    sys.exit(main())
