"""`python -m cis490`."""

from cis490.cli import main

if __name__ == "__main__":
    main()
