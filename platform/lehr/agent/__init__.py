"""What an agent may do with the runs of a storage folder, within a budget that a person set."""

from lehr.agent.budget import Budget
from lehr.agent.tools import Tools

__all__ = ["Budget", "Tools"]
