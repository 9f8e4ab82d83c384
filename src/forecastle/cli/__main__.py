"""``python -m forecastle.cli`` is the command ``forecastle``."""

import sys

from forecastle.cli import program

sys.exit(program())
