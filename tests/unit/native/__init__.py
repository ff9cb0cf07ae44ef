"""Tests of the native core against its plain-Python twins."""
