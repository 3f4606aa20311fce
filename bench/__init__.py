"""Measures pywg beside other userspace programs on one machine: `python -m bench --help`.

Programs take turns within the same minutes, each pair of hosts is made of fresh network namespaces, and every
sample is kept. Only ratios of such turns mean anything: absolute figures differ between machines, and within
the hour.
"""
