"""`python -m lehr` is `lehr`."""

from lehr.cli.main import main

main()
