"""`python -m loyalty` is the same as `loyalty`."""

from loyalty.cli import main

main()
