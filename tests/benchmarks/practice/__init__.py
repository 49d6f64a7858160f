"""How often what lehr says of a run is right, on cases that nobody tuned it on.

    python -m tests.benchmarks.practice [--split develop|report] [--cases 120] [--date 2026-12-01] [--keep FOLDER]
    python -m tests.benchmarks.practice --judge FOLDER [--split develop|report] [--date 2026-12-01] [--write]

A case is a data set, a network, a length, and perhaps one fault with a strength, all drawn from a seed (`cases.py`).
Pairs of fault and data set belong either to development or to reporting, some faults are only reported, and some data
sets are for development only; there sound runs vary more than in a report. The cases
of a report are drawn from its date. Each case with a fault has a twin without it, trained on the same rows: a fault
that costs nothing counts as a sound run. The twin of a run without a fault has three times the epochs: where that helps
much, the run was too short. What the first finding says is right, acceptable, silent or wrong (`judge.py`).
"""
