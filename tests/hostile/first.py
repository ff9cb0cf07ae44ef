"""A sound checkpoint of TensorFlow's first format, from which malformed ones are made."""

from __future__ import annotations

import numpy as np

from tests.oracle import first, table

W = np.arange(6, dtype=np.float32).reshape(2, 3)
ALL = [(0, -1), (0, -1)]
KEY = first.key(b"w", ALL)
SOUND = first.entries({b"w": first.whole("float32", W)})


def write(folder, content, name="model"):
    """Write a file, of bytes or of records."""
    data = content if isinstance(content, bytes) else table.assemble([list(content)])
    (folder / name).write_bytes(data)
    return str(folder / name)
