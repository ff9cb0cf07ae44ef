"""Benchmarks: what ckptkit promises about speed and memory, measured side by side.

``python -m benchmarks --list`` names them. A module that has ``trials`` is one benchmark: it says
who runs, and what is promised. The others measure and report.
"""
