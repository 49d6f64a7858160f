"""What is learned: labels, head, loss, metrics, and how an output is told. README.md beside this file is the guide.

`forms.py` lists the tasks, `base.py` says what one is, and each has a module here. This module imports none of them:
job files are read without torch.
"""
