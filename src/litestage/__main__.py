"""``python -m litestage``, for an environment whose commands are not on the path."""

from litestage.cli import main

if __name__ == "__main__":
    main()
