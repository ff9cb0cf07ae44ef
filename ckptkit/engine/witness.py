"""TensorFlow's reader as a witness: a program that reads a checkpoint beside ours, and tells.

It is a process of its own, which a hostile file may crash. It tells line by line, in JSON, what it
is about to do and what came of it, so that who listens knows where it died.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ckptkit.engine.blocks import cut
from ckptkit.engine.read import read_box, read_tensor
from ckptkit.errors import CkptError, UnsupportedError
from ckptkit.model import DTYPES
from ckptkit.region import Box
from ckptkit.storage.disk import Sources
from ckptkit.storage.foreign import NEEDED, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.checkpoint import Checkpoint

BLOCK: Final = 16 << 20
"""Bytes of ours that are compared at a time."""

MISSING: Final = 3
"""Exit status of a witness that finds no TensorFlow."""


class Witness:
    """Reads one checkpoint with TensorFlow, and tells of it."""

    def __init__(self, prefix: str, out: int) -> None:
        """Start with nothing read.

        Args:
            prefix: What TensorFlow takes for the checkpoint.
            out: A descriptor to write to.
        """
        self._prefix = os.fsencode(prefix)
        self._out = os.fdopen(out, "w", encoding="ascii")
        self._reader: Any = None

    def tell(self, **what: Any) -> None:
        """Write a line."""
        self._out.write(json.dumps(what) + "\n")
        self._out.flush()

    def open(self) -> bool:
        """Open the checkpoint, and tell names, dtypes and shapes; or that it is refused."""
        from tensorflow.python.training.py_checkpoint_reader import CheckpointReader

        self.tell(about="open")
        try:
            self._reader = CheckpointReader(self._prefix)
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
        except UnicodeDecodeError:
            self.tell(unlisted=True)
        except Exception as error:  # noqa: BLE001  whatever TensorFlow raises is what it says
            self.tell(refused=said(error))
            return False
        else:
            listed = {name: (dtypes[name].name, shape) for name, shape in shapes.items()}
            self.tell(listed=listed)
        return True

    def read(self, name: str) -> Any:
        """Return the values of a tensor; or None, after it told why."""
        try:
            return self._reader.get_tensor(name.encode("utf-8", "surrogateescape"))
        except Exception as error:  # noqa: BLE001  as above
            self.tell(theirs=said(error))
            return None

    def compare(self, checkpoint: Checkpoint, first: int) -> None:
        """Read tensors from a position on with both readers, and tell whether they agree."""
        names, sources = checkpoint.catalog.names, Sources()
        for at in range(first, len(names)):
            self.tell(about=at)
            theirs = self.read(names[at])
            try:
                same = theirs is not None and _same(checkpoint, sources, names[at], theirs)
            except CkptError as error:
                self.tell(ours=error.message)
            else:
                if theirs is not None:
                    self.tell(same=same)

    def visit(self, names: Sequence[str]) -> None:
        """Read tensors with TensorFlow alone: what crashes it shows."""
        for at, name in enumerate(names):
            self.tell(about=at)
            self.read(name)

    def names(self) -> list[str]:
        """Return the names that TensorFlow lists."""
        return sorted(self._reader.get_variable_to_shape_map())


def _same(checkpoint: Checkpoint, sources: Sources, name: str, theirs: Any) -> bool:
    """Tell whether every bit of a tensor is the one that TensorFlow gave."""
    tensor = checkpoint.catalog[name]
    values = np.asarray(theirs, object if isinstance(theirs, bytes) else None)
    if tensor.spec.kind in {"string", "variant"}:
        ours = read_tensor(sources, name, tensor, checkpoint.writer.decode)
        return ours.shape == values.shape and ours.tolist() == values.tolist()
    if values.shape != tensor.spec.shape or values.dtype.itemsize != tensor.spec.itemsize:
        return False
    bits = DTYPES[tensor.spec.dtype].bits
    for box in cut(Box.whole(tensor.spec.shape), tensor.spec.itemsize, BLOCK):
        index: Any = (*box.slices(), ...)
        if _bits(read_box(sources, tensor, box), bits) != _bits(values[index], bits):
            return False
    return True


def _bits(values: NDArray[Any], bits: int) -> bytes | memoryview:
    """Return what two arrays have to have in common; of narrow elements the lower bits."""
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    if bits == 1:
        raw = np.minimum(raw, 1)
    elif bits < 8:
        raw = raw & np.uint8((1 << bits) - 1)
    return raw.data


def main(arguments: Sequence[str]) -> int:
    """Read the checkpoint that the arguments name.

    Args:
        arguments: The descriptor to write to; the prefix; the path that our reader takes, or
            nothing for TensorFlow alone; the position of the tensor to begin with.

    Returns:
        The exit status.
    """
    out, prefix, path, first = arguments
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        import tensorflow  # noqa: F401, ICN001  it is asked for by parts
    except ModuleNotFoundError:
        return MISSING
    witness = Witness(prefix, int(out))
    if not witness.open():
        return 0
    if not path:
        witness.visit(witness.names())
        return 0
    import ckptkit

    with ckptkit.open(path) as checkpoint:
        witness.compare(checkpoint, int(first))
    return 0


def lines(prefix: str, path: str, first: int) -> Iterator[dict[str, Any]]:
    """Run a witness, and yield what it tells; the last is ``died``, the signal, if it crashed.

    Args:
        prefix: What TensorFlow takes for the checkpoint.
        path: What our reader takes, or nothing for TensorFlow alone.
        first: The position of the tensor to begin with.

    Raises:
        UnsupportedError: TensorFlow is not installed.
    """
    import subprocess

    reading, writing = os.pipe()
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package, *([found] if found else [])]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    # Modules in the current folder, which may be that of the checkpoint, are not for us.
    command = [sys.executable, "-P", "-m", "ckptkit.engine.witness"]
    try:
        process = subprocess.Popen(  # noqa: S603  Python itself, and a module of ours
            [*command, str(writing), prefix, path, str(first)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writing,),
            env=environment,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        with os.fdopen(reading, encoding="ascii") as told:
            yield from map(json.loads, told)
        status = process.wait()
    finally:
        process.kill()
        process.wait()
    if status == MISSING:
        raise UnsupportedError(NEEDED)
    if status:
        yield {"died": -status if status < 0 else None, "status": status}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
