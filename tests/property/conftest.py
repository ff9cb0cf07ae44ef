"""Fixtures of the laws."""

from __future__ import annotations

import pytest

from ckptkit.engine import program, queue, read, run, work


@pytest.fixture
def tiny(monkeypatch):
    """Set how many bytes are a chunk, a block, a read, or a copy."""

    def choose(chunk, block, near=None):
        monkeypatch.setattr(run, "MAX_CHUNK", chunk)
        monkeypatch.setattr(program, "BLOCK", block)
        monkeypatch.setattr(work, "COPY", 3 * chunk)
        monkeypatch.setattr(queue, "COPY", 3 * chunk)
        for module in (read, program):
            monkeypatch.setattr(module, "CHUNK", near or block)

    return choose
