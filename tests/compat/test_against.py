"""``ckptkit verify --against tensorflow``, with TensorFlow itself in a process of its own."""

import json
import struct

import numpy as np
import pytest

from tests.compat.tensors import every_dtype, tensor, write
from tests.golden.handmade import Bundle, grid
from tests.hostile import forge
from tests.oracle import first
from tests.oracle.crc import crc32c, mask
from tests.oracle.varint import put_varint

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def verify(run):
    """Verify a checkpoint against TensorFlow; the exit code, and what is said."""

    def call(path):
        code, out, _ = run("verify", "--against", "tensorflow", path, "--json")
        return code, json.loads(out)

    return call


def test_every_bit_of_every_dtype_is_the_same(tf, tmp_path, verify):
    values = {name: tensor(tf, array, dtype) for name, (dtype, array) in every_dtype().items()}
    prefix = write(tf, tmp_path / "m", values)
    code, found = verify(prefix)
    assert code == 0
    assert found["problems"] == []
    (compared,) = found["against"]
    assert (compared["path"], compared["tensors"]) == (prefix, len(values))
    assert compared["bytes"] == found["checked_bytes"]


def test_slices_that_tensorflow_does_not_join_are_a_warning(tmp_path, verify, tf):
    bundle = Bundle()
    for name, dtype in ((b"half", np.float16), (b"single", np.float32)):
        values = np.arange(12, dtype=dtype).reshape(4, 3)
        bundle.add_slices(name, values, grid((4, 3), [[1], [2]]))
    code, found = verify(bundle.write(tmp_path / "m"))
    assert code == 0
    (problem,) = [one for one in found["problems"] if "TensorFlow reads no" in one["message"]]
    assert (problem["tensor"], problem["severity"]) == ("half", "warning")
    assert "in slices of this dtype" in problem["message"]
    assert found["against"][0]["tensors"] == 1


def test_slices_of_the_first_format_are_a_warning(tmp_path, verify, tf):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = [[(0, 1), (0, -1)], [(1, 3), (0, -1)]]
    (tmp_path / "m").write_bytes(first.encode({b"w": ("float32", values, rows)}))
    code, found = verify(tmp_path / "m")
    assert code == 0
    (problem,) = found["problems"]
    assert "no tensors in slices of the first format" in problem["message"]


def test_the_beginning_of_a_checkpoint_is_refused_by_both(tmp_path, verify, tf):
    whole = first.encode({b"w": first.whole("float32", np.float32([1, 2]))})
    (tmp_path / "m").write_bytes(whole[:-9])
    code, found = verify(tmp_path / "m")
    assert code == 1
    assert "cut short" in found["problems"][0]["message"]
    assert any("refuses it as well" in note["message"] for note in found["notes"])


def test_a_crash_of_tensorflow_is_told_and_others_are_read(tmp_path, verify, tf):
    """A string that claims 2^62 bytes, with the checksum of that."""
    claimed = crc32c(struct.pack("<Q", 1 << 62))
    payload = put_varint(1 << 62) + struct.pack("<I", mask(claimed))
    records = [
        forge.header(),
        (b"a", forge.record()),
        (b"s", forge.record(payload, [1], forge.STRING, offset=len(forge.PAYLOAD))),
        (b"z", forge.record()),
    ]
    code, found = verify(forge.write(tmp_path, records, forge.PAYLOAD + payload))
    assert code == 1
    crashes = [one for one in found["problems"] if "TensorFlow crashed" in one["message"]]
    assert [one["tensor"] for one in crashes] == ["s"]
    assert "when it read this tensor" in crashes[0]["message"]
    assert found["against"][0]["tensors"] == 2


def test_a_crash_on_what_we_refuse_is_told(tmp_path, verify, tf):
    """A dimension below 0, on which TensorFlow aborts when it opens the checkpoint."""
    code, found = verify(forge.simple(tmp_path, forge.record(dims=[-1, 6])))
    assert code == 1
    messages = [one["message"] for one in found["problems"]]
    crash = "TensorFlow crashed (signal 6) when it opened the checkpoint"
    assert crash in messages
    assert len(messages) == 2


def test_tensors_that_tensorflow_hides_are_told(tmp_path, verify, tf):
    """It takes the first record for the header, whatever it is; and stops where keys go down."""
    bad = forge.item(9, b"w", forge.record())
    content = forge.one_block(forge.item(0, b"a", forge.record()), bad)
    code, found = verify(forge.write(tmp_path, content, forge.PAYLOAD))
    assert code == 1
    (note,) = [one["message"] for one in found["notes"] if "refuses" in one["message"]]
    assert note == "TensorFlow opens what ckptkit refuses, and lists 1 tensor"


def test_without_json_it_is_said_in_a_line(tf, tmp_path, run):
    prefix = write(tf, tmp_path / "m", {"x": tf.constant([1.0])})
    code, out, _ = run("verify", prefix, "--against", "tensorflow")
    assert code == 0
    assert f"{prefix}: 1 tensor read by TensorFlow as well" in out
    assert f"{prefix}: ok, 4 B checked, no problems" in out
