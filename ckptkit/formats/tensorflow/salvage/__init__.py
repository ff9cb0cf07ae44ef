"""Damaged bundles: what can be read of an index, and how payloads lie without one."""
