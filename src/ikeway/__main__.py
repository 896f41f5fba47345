"""`python -m ikeway`."""

from ikeway.cli import main

main()
