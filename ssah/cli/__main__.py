"""``python -m ssah.cli``."""

import sys

from . import main

sys.exit(main())
