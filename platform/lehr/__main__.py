"""`python -m lehr` is `lehr`."""

import sys

if not sys.flags.safe_path:  # the current folder: files beside a job must not take the place of what is imported below
    del sys.path[0]

from lehr.cli.main import main

main()
