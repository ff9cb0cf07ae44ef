"""Named edits of weights: what people rebuild models for, each as one value.

Like all edits they read nothing: they say what tensors there are afterwards, and from what each is
derived. Most are formulas of the edit language; the others add tensors or leave some out.
"""

from ckptkit.surgery.folding import (
    FoldBatchNorm,
)
from ckptkit.surgery.parts import Repartition
from ckptkit.surgery.quantizing import (
    Dequantize,
    Quantize,
)
from ckptkit.surgery.shapes import (
    Join,
    New,
    Pad,
    Reshape,
    Resize,
    Split,
    Stack,
    Take,
    Transpose,
    Unstack,
)
from ckptkit.surgery.values import (
    Clip,
    LowRank,
    Noise,
    Prune,
    Repair,
    Sparsify,
    StochasticCast,
)

__all__ = [
    "Clip",
    "Dequantize",
    "FoldBatchNorm",
    "Join",
    "LowRank",
    "New",
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
]
