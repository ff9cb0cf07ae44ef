"""What tests of commands share: one to run a command line, and one to run it for its JSON."""

import json

import pytest

from ckptkit.cli import main


@pytest.fixture
def run(capsys):
    """Run a command line; its exit code, and what it wrote to either stream."""

    def call(*args):
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def as_json(run):
    """Run a command line with ``--json``; the object that it printed."""

    def call(*args, code=0):
        found, out, err = run(*args, "--json")
        assert found == code, err
        return json.loads(out)

    return call
