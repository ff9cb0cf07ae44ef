"""Findings about a Keras checkpoint that stop no reader, and what of it has a checksum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptkit.formats.keras.archive.reader import read_archive
from ckptkit.formats.keras.naming.repair import missing_names
from ckptkit.formats.keras.package import opened
from ckptkit.formats.keras.paths import kind_of
from ckptkit.formats.keras.scan import dead_bytes
from ckptkit.storage.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Member, Warn
    from ckptkit.model import Source

REFUSAL: Final = "Keras refuses to load it"


def audit(source: Source, catalog: Catalog, warn: Warn) -> None:  # noqa: ARG001  the protocol's
    """Report dead bytes, names that a group should have, and bytes behind the end."""
    with opened(source) as package:
        for content in package.contents:
            dead = dead_bytes(content)
            if dead:
                text = f"{dead} bytes belong to no tensor; edit --compact leaves them out"
                warn(content.path, None, text)
            if content.tree.end < content.length:
                more = content.length - content.tree.end
                text = f"{more} bytes follow the end of the HDF5 content"
                warn(content.path, content.start + content.tree.end, text)
        trees = [content.tree for content in package.contents]
        for number, groups in missing_names(trees).items():
            for group, name in groups.items():
                text = f"group {group!r} has no name, and is called {name!r} in another shard"
                warn(
                    package.contents[number].path, None, f"{text}; --repair-names gives it its name"
                )


def members(source: Source) -> Sequence[Member]:
    """Return the members of an archive."""
    if kind_of(source) != "archive":
        return ()
    from ckptkit.formats import Member

    with Disk().open(source.path) as file:
        return [
            Member(source.path, one.data_offset, one.size, one.crc32, one.name, REFUSAL)
            for one in read_archive(file).members
            if not one.method
        ]
