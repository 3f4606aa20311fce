"""Months of many machines on a virtual clock, over a bad network; see docs/explanation/robustness.md.

`invariants.py` is what must never happen, `machine.py` one host under watch, `network.py` the weather between
them, `simulation.py` the world and what befalls it, `recovery.py` how soon it mends.
"""
