"""Disks that fail, stop, and forget."""
