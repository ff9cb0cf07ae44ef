"""Open, verify, edit and rewrite checkpoints without building the model.

:func:`open` gives a :class:`Checkpoint`, a mapping from names to lazy tensors; its ``edit`` gives a
:class:`Draft`, whose ``plan`` says what would be read and written, and whose plan's ``run`` does
it::

    ckpt = ckptkit.open("run/model-1000")
    ckpt.edit("dense/kernel[:, 1] *= 1.5", "drop optimizer state").plan("out/model-1000").run()

Besides:

* :func:`save` writes values in memory, :func:`convert` another kind of file, and :func:`matched`
  gives the values of one checkpoint the form of another one.
* :func:`diff` compares two, and :func:`manifest` writes checksums for those that have none.
* :func:`recover` ends an edit in place that was cut short; :func:`undo` takes back one that kept an
  undo, which :func:`discard_undo` removes.
* :func:`salvage` writes what can be saved of a damaged TensorFlow checkpoint.
* :func:`checkpoints` lists a folder, :func:`register` makes a checkpoint the latest in its state
  file, and :func:`repair_state` mends that file after a move.
* :class:`Put`, :class:`Map`, :class:`Prune` and so on are edits as values; statements are strings.
* :mod:`ckptkit.tf`, to be imported by itself, has TensorFlow's functions for checkpoints.

What is refused raises a :class:`CkptError`; what the system refuses, an ``OSError``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ckptkit.api import convert as convert
    from ckptkit.api import diff as diff
    from ckptkit.api import discard_undo as discard_undo
    from ckptkit.api import manifest as manifest
    from ckptkit.api import matched as matched
    from ckptkit.api import recover as recover
    from ckptkit.api import salvage as salvage
    from ckptkit.api import save as save
    from ckptkit.api import undo as undo
    from ckptkit.checkpoint import Checkpoint as Checkpoint
    from ckptkit.checkpoint import Draft as Draft
    from ckptkit.checkpoint import open as open  # noqa: A004  it opens, as gzip.open does
    from ckptkit.edits import Map as Map
    from ckptkit.edits import Put as Put
    from ckptkit.engine.salvage.account import Salvaged as Salvaged
    from ckptkit.errors import CkptError as CkptError
    from ckptkit.errors import ConflictError as ConflictError
    from ckptkit.errors import CorruptError as CorruptError
    from ckptkit.errors import EditError as EditError
    from ckptkit.errors import FormatError as FormatError
    from ckptkit.errors import NeedsRecoveryError as NeedsRecoveryError
    from ckptkit.errors import TensorNotFoundError as TensorNotFoundError
    from ckptkit.errors import UnknownFormatError as UnknownFormatError
    from ckptkit.errors import UnsupportedError as UnsupportedError
    from ckptkit.folder import Found as Found
    from ckptkit.folder import checkpoints as checkpoints
    from ckptkit.placement import Layout as Layout
    from ckptkit.registry import Registration as Registration
    from ckptkit.registry import register as register
    from ckptkit.registry import repair_state as repair_state
    from ckptkit.surgery import Clip as Clip
    from ckptkit.surgery import Dequantize as Dequantize
    from ckptkit.surgery import FoldBatchNorm as FoldBatchNorm
    from ckptkit.surgery import Join as Join
    from ckptkit.surgery import LowRank as LowRank
    from ckptkit.surgery import Noise as Noise
    from ckptkit.surgery import Pad as Pad
    from ckptkit.surgery import Prune as Prune
    from ckptkit.surgery import Quantize as Quantize
    from ckptkit.surgery import Repair as Repair
    from ckptkit.surgery import Repartition as Repartition
    from ckptkit.surgery import Reshape as Reshape
    from ckptkit.surgery import Resize as Resize
    from ckptkit.surgery import Sparsify as Sparsify
    from ckptkit.surgery import Split as Split
    from ckptkit.surgery import Stack as Stack
    from ckptkit.surgery import StochasticCast as StochasticCast
    from ckptkit.surgery import Take as Take
    from ckptkit.surgery import Transpose as Transpose
    from ckptkit.surgery import Unstack as Unstack

__version__ = "0.1.0"

_HOME: Final = {
    **dict.fromkeys(
        (
            "convert",
            "diff",
            "discard_undo",
            "manifest",
            "matched",
            "recover",
            "salvage",
            "save",
            "undo",
        ),
        "api",
    ),
    **dict.fromkeys(("Checkpoint", "Draft", "open"), "checkpoint"),
    **dict.fromkeys(("Map", "Put"), "edits"),
    **dict.fromkeys(
        (
            "CkptError",
            "ConflictError",
            "CorruptError",
            "EditError",
            "FormatError",
            "NeedsRecoveryError",
            "TensorNotFoundError",
            "UnknownFormatError",
            "UnsupportedError",
        ),
        "errors",
    ),
    **dict.fromkeys(("Found", "checkpoints"), "folder"),
    **dict.fromkeys(("Registration", "register", "repair_state"), "registry"),
    "Salvaged": "engine.salvage.account",
    "Layout": "placement",
    **dict.fromkeys(
        (
            "Clip",
            "Dequantize",
            "FoldBatchNorm",
            "Join",
            "LowRank",
            "Noise",
            "Pad",
            "Prune",
            "Quantize",
            "Repair",
            "Repartition",
            "Reshape",
            "Resize",
            "Sparsify",
            "Split",
            "Stack",
            "StochasticCast",
            "Take",
            "Transpose",
            "Unstack",
        ),
        "surgery",
    ),
}

__all__ = sorted(_HOME)  # noqa: PLE0605  the names above, which are imported when used


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that small commands start quickly."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
