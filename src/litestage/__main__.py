"""Where a process starts: ``litestage``, or ``python -m litestage`` where commands are not on the path."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command; Ctrl-C ends it quietly also while the first libraries load."""
    try:
        from litestage.cli import main as run

        run()
    except KeyboardInterrupt:
        print("litestage: stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
