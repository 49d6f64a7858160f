"""What a notebook shows: a job while it runs, and a run as the result of a cell.

All of it is HTML and SVG without scripts, so it looks the same in Jupyter, VS Code and Colab, in a notebook that was
saved, and without a network.
"""

from lehr.notebooks.live import NotebookScreen, in_notebook
from lehr.notebooks.run import run_html

__all__ = ["NotebookScreen", "in_notebook", "run_html"]
