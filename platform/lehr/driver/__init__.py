"""Running a job of any kind from start to end. What a kind does is its own affair: see `lehr.kinds`."""

from lehr.driver.kind import Kind
from lehr.driver.run import run_with
from lehr.driver.run_folder import changes, choose_run_folder
from lehr.driver.running import Interrupted, Running

__all__ = ["Interrupted", "Kind", "Running", "changes", "choose_run_folder", "run_with"]
