"""The recipe: from an untuned job to a tuned run, step by step, each with its check, its decision and its chart.

After Karpathy, "A recipe for training neural networks", 2019, and Stanford's lectures CS231n. Every step measures
something (a frozen `Result`), and decides by a pure function of the results; `planner.next_step` puts them in order.
"""
