"""Probes: cheap measurements of a run's rows and network that tell causes apart which its curves alone cannot.

`lehr diagnose RUN --probe` runs those that `curves.alternatives` names for what the curves show. Each is a function of
a `Subject` (job, rows, network) with a plain result. They train on this machine, without Ray, and write nothing;
the command keeps what they say in `probes.json`.
"""

from lehr.probes.budget import Budget
from lehr.probes.results import Cause, Diagnosed, Evidence, ProbeResult, conclude
from lehr.probes.run import probe, subject_of
from lehr.probes.subject import Subject

__all__ = [
    "Budget",
    "Cause",
    "Diagnosed",
    "Evidence",
    "ProbeResult",
    "Subject",
    "conclude",
    "probe",
    "subject_of",
]
