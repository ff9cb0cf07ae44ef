"""The edit language: a statement of text to an edit, and nothing is ever evaluated as code."""

from ckptkit.language.expression import MAX_DEPTH, MAX_DIGITS
from ckptkit.language.reference import REFERENCE
from ckptkit.language.scanner import MAX_LENGTH
from ckptkit.language.statements import parse, parse_all

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "MAX_LENGTH", "REFERENCE", "parse", "parse_all"]
