"""What the readers bring along, which is little, and how they stand without TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest

import ckptkit
from ckptkit.tf import bindings

LOADED = """
import json, sys
import ckptkit.tf
found = lambda: [name for name in ("numpy", "h5py", "tensorflow", "keras") if name in sys.modules]
at_import = found()
ckptkit.tf.list_variables(sys.argv[1])
listed = found()
ckptkit.tf.load_variable(sys.argv[1], "w")
print(json.dumps([at_import, listed, found()]))
"""


def test_numpy_comes_with_the_first_values_and_tensorflow_never(tmp_path):
    ckptkit.save(tmp_path / "m", {"w": np.arange(3.0)})
    command = [sys.executable, "-c", LOADED, str(tmp_path / "m")]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    assert json.loads(result.stdout) == [[], [], ["numpy"]]


def test_without_tensorflow_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(bindings, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="tensorflow is not installed") as caught:
        bindings.install()
    assert caught.value.name == "tensorflow"
    with pytest.raises(ModuleNotFoundError), bindings.installed():
        pytest.fail("the block is not entered")
    assert bindings.bound_names() == []
    bindings.uninstall()
