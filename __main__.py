"""``python -m faceveil``."""

import sys

if __package__:
    from .pipelines.cli import main

    sys.exit(main())
