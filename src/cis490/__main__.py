"""`python -m cis490`."""

from cis490.cli import main

main()
