"""`python -m lehr` is `lehr`."""

from lehr.own_modules import not_first

not_first()  # files beside the job must not take the place of what is imported from here on

from lehr.cli.main import main  # noqa: E402

main()
