"""`python -m jnas` is `jnas`."""

import sys

from jnas.cli import main

sys.exit(main())
