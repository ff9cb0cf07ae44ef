"""Plain-Python twins of the native functions: slow, obviously right, importing nothing native.

They return plain Python values (lists of names, tuples of numbers), not packed columns.
"""


class MalformedError(ValueError):
    """Bytes that are not what the format prescribes."""
