"""TensorFlow's own functions for checkpoints, by its own names, without TensorFlow.

Code that reads checkpoints needs one line changed, and starts without TensorFlow::

    import ckptkit.tf as tf_train            # was: from tensorflow import train as tf_train

    for name, shape in tf_train.list_variables("run/model-1000"):
        values = tf_train.load_variable("run/model-1000", name)

    reader = tf_train.load_checkpoint("run")            # a prefix, or a folder with a state file
    reader.get_variable_to_shape_map()                  # {name: [3, 4]}, in TensorFlow's order
    reader.get_variable_to_dtype_map()                  # {name: tf.float32}, equal to "float32"
    reader.get_tensor("dense/kernel")

Code of others needs none: :func:`install` puts these functions under TensorFlow's names, for good
or, as ``with ckptkit.tf.installed():``, for a block.

Names, order, shapes, dtypes, values and kinds of errors are those of TensorFlow 2.21 (the order of
the two maps that of its builds for Linux). What differs:

* A damaged index, or values that contradict it, are ``DataLossError``; TensorFlow raises a plain
  ``OpError``, lists a part of the tensors, or crashes. ``OpError`` is the base of all here, too.
* Slices of ``float16``, ``uint16``, ``uint32``, ``uint64``, ``float8`` and strings are joined.
* Names that are no UTF-8 are listed, with lone surrogates for their bytes.
* A path is no pattern of paths, but for the first format and ``checkpoint_exists``.
* The path of an index is refused; TensorFlow finds no tensors in it.
* File systems that only TensorFlow knows are left to it: ``ckptkit.open(path,
  reader="tensorflow")``.
"""

from ckptkit.tf import errors as errors
from ckptkit.tf.bindings import Binding, bound_names, install, installed, uninstall
from ckptkit.tf.dtypes import DType
from ckptkit.tf.finding import (
    checkpoint_exists,
    latest_checkpoint,
    list_variables,
    load_checkpoint,
    load_variable,
)
from ckptkit.tf.reader import CheckpointReader, NewCheckpointReader

__all__ = [
    "Binding",
    "CheckpointReader",
    "DType",
    "NewCheckpointReader",
    "bound_names",
    "checkpoint_exists",
    "errors",
    "install",
    "installed",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
    "uninstall",
]
