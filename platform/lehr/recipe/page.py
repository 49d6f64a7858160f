from lehr.runs import RunFolder


def write(run: RunFolder) -> None:
    pass
