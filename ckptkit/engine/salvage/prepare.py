"""From a damaged checkpoint to the plan of a sound one, and the account of what is lost."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ckptkit.engine.choose import Wish, build_plan
from ckptkit.engine.preflight import check_readable
from ckptkit.engine.read import read_tensor
from ckptkit.engine.salvage.account import Salvaged
from ckptkit.engine.salvage.assemble import Assembly, assemble
from ckptkit.engine.salvage.choose import Choice, found_bundle
from ckptkit.engine.salvage.gaps import fitting_gaps
from ckptkit.engine.salvage.judge import Judged, judge
from ckptkit.errors import CkptError, CorruptError, EditError, UnsupportedError
from ckptkit.formats import find
from ckptkit.formats.tensorflow import TENSORFLOW
from ckptkit.formats.tensorflow.graph.objects import MAX_BYTES, read_graph
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.formats.tensorflow.paths import INDEX
from ckptkit.formats.tensorflow.salvage.bundle import read_bundle
from ckptkit.formats.tensorflow.salvage.graph import named, pruned
from ckptkit.formats.tensorflow.salvage.outline import outline_of, read_sizes
from ckptkit.formats.tensorflow.salvage.paths import find_bundle
from ckptkit.formats.tensorflow.salvage.tiling import Known, tile
from ckptkit.sizes import counted
from ckptkit.storage.disk import Sources, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.engine.salvage.judge import Progress
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph
    from ckptkit.formats.tensorflow.salvage.bundle import Bundle, Damage
    from ckptkit.formats.tensorflow.salvage.outline import Outline
    from ckptkit.formats.tensorflow.salvage.tiling import Place, Tiling
    from ckptkit.model import Source

LISTED: Final = 20
"""Records that the account of an index lists, before it counts the others."""


def prepare(
    src: str,
    destination: str,
    *,
    donors: Sequence[str] = (),
    sizes: str | None = None,
    keep_damaged: bool = False,
    progress: Progress | None = None,
) -> Salvaged:
    """Read all of a damaged checkpoint, judge it, and lay out what can be saved of it.

    Args:
        src: The damaged checkpoint: a TensorFlow checkpoint of the second format.
        destination: Where the result is to be.
        donors: Checkpoints of the same model, which fill what is lost.
        sizes: The path of a table of sizes, by which a lost index is made anew.
        keep_damaged: Keep tensors whose bytes are all there, and are not what they were.
        progress: Called with bytes done and bytes in all, of each pass.

    Raises:
        FileNotFoundError: There is nothing of a checkpoint.
        UnsupportedError: It is another format's.
        CorruptError: Nothing can be saved, or the sizes do not fit the shards.
        EditError: There is something at the destination, or a donor cannot be one.
    """
    source = _source(src)
    ours = read_bundle(source.path)
    others = [_donor(path) for path in donors]
    sources = Sources()
    try:
        return _Salvage(source, ours, others, sources, progress).result(
            destination, sizes, keep_damaged=keep_damaged
        )
    finally:
        sources.close()


def _source(path: str) -> Source:
    try:
        form, _ = find(path)
    except (CkptError, FileNotFoundError):
        form = None
    if form is not None and form.name != TENSORFLOW.name:
        msg = (
            "salvage reads what is left of a TensorFlow checkpoint of the second format; this is"
            f" one of {form.name}"
        )
        raise UnsupportedError(msg, path=path)
    source = find_bundle(path)
    check_readable(os.path.abspath(source.path), str(source))
    return source


def _donor(path: str) -> Bundle:
    form, source = find(path)
    if form.name != TENSORFLOW.name:
        msg = f"a donor is a TensorFlow checkpoint of the second format; this is one of {form.name}"
        raise EditError(msg, path=path)
    check_readable(os.path.abspath(source.path), str(source))
    return read_bundle(source.path)


class _Salvage:
    """One salvage: reads, judges, chooses."""

    def __init__(
        self,
        source: Source,
        ours: Bundle,
        donors: Sequence[Bundle],
        sources: Sources,
        progress: Progress | None,
    ) -> None:
        self.source = source
        self.donors = donors
        self.sources = sources
        self.progress = progress
        self.notes: list[str] = []
        if ours.header is None and donors:
            # Nothing tells the order of bytes but a save by the same machine.
            columns = replace(ours.columns, byteorder=donors[0].columns.byteorder)
            ours = replace(ours, columns=columns)
        for donor in donors:
            if _order(donor) != _order(ours):
                msg = f"the donor is {_order(donor)}-endian, the checkpoint is not"
                raise EditError(msg, path=donor.prefix)
        judged = judge(ours, donors, sources, progress)
        self.ours = judged.bundle
        self.choice = Choice([judged])
        self.complete = not self.ours.gaps
        self.doubtful = False

    def result(self, destination: str, sizes: str | None, *, keep_damaged: bool) -> Salvaged:
        """Return the account, and the plan with it."""
        outlines = [read_sizes(sizes)] if sizes is not None else []
        outlines += [outline_of(donor) for donor in self.donors]
        self.choice.confirm(outlines)
        if self.ours.gaps:
            self._lay(outlines)
        for donor in self.donors:
            self.choice.donors.append(len(self.choice.members))
            self.choice.members.append(Judged(donor))
        if self.ours.gaps and not self.complete:
            self._search()
        self.choice.keep = keep_damaged
        graph = self._choose_graph()
        names, reasons = self._names(outlines, graph)
        self.choice.take([name for name in names if name != GRAPH_KEY], self.sources, self.progress)
        return self._account(destination, graph, names, reasons)

    # --- what the index lacks --------------------------------------------------------------------

    def _lay(self, outlines: Sequence[Outline]) -> None:
        """Find payloads whose records are lost by how those of another save lie."""
        refused: tuple[Outline, Tiling] | None = None
        for outline in outlines:
            known = dict(self._known())
            tiling = tile(
                outline,
                self.ours.columns.files,
                self.ours.lengths,
                known,
                self.sources,
                big_endian=_order(self.ours) == "big",
            )
            if tiling.refused and self.ours.missing:
                refused = refused or (outline, tiling)
                continue
            if not tiling.shards:
                continue
            self._add_found(outline, tiling, known)
            if not tiling.refused:
                self.complete = True
                return
        if self.ours.missing:
            self._refuse(refused)

    def _known(self) -> Iterator[tuple[str, Known]]:
        columns = self.ours.columns
        for key, row in self.ours.rows.items():
            if not columns.flags[row] & columns.SLICED and self.choice.good(key) is not None:
                yield key, Known(columns.shard[row], columns.offset[row], columns.size[row])

    def _add_found(self, outline: Outline, tiling: Tiling, known: dict[str, Known]) -> None:
        keys = dict(zip(outline.rows, outline.keys, strict=True))
        trusted = self.ours.trusted
        places = [
            place
            for place in tiling.places
            if (key := keys[place.row]) not in known
            and (key not in self.ours.rows or self.ours.rows[key] not in trusted)
        ]
        if not places:
            return
        bundle = found_bundle(outline, self.ours, [place[:4] for place in places])
        judged = Judged(bundle)
        judged.add([place.row for place in places], self.sources, self.progress)
        before = outline.bundle.columns
        if outline.bundle.summed:
            judged.confirmed.update(
                row for row, value in judged.found.items() if value == before.checksum[row]
            )
        judged.confirmed.update(
            place.row for place in places if self._recorded(keys[place.row], place)
        )
        proven = sum(
            place.size > 0 and (place.proven or place.row in judged.confirmed) for place in places
        )
        self.choice.members.append(judged)
        used = sum(place.size > 0 for place in places)
        text = f"found as the sizes of {outline.source} say, to the byte: "
        text += counted(used, "payload")
        if proven:
            self.notes.append(f"{text}; {proven:,} of them are confirmed by checksum")
        else:
            self.notes.append(f"{text}; no checksum confirms that, so look at the values")

    def _recorded(self, key: str, place: Place) -> bool:
        """Tell whether a record of a damaged block agrees with a place, and with its bytes."""
        row, columns = self.ours.rows.get(key), self.ours.columns
        return (
            row is not None
            and self.choice.ours.sound(row)
            and (columns.shard[row], columns.offset[row], columns.size[row]) == place[1:4]
        )

    def _refuse(self, refused: tuple[Outline, Tiling] | None) -> None:
        path = self.ours.index
        if not self.ours.lengths:
            msg = "there are no data files: nothing can be saved"
            raise CorruptError(msg, path=path)
        if refused is None:
            msg = (
                "the index is missing: give --donor, another checkpoint of the same model, or"
                " --sizes, a table of what is in the data files"
            )
            raise CorruptError(msg, path=path)
        outline, tiling = refused
        shard, (offset, key, message) = min(tiling.refused.items())
        msg = f"the sizes of {outline.source} do not fit this shard: {message}"
        where = self.ours.columns.files.get(shard, path)
        raise CorruptError(msg, path=where, tensor=key, offset=offset)

    def _search(self) -> None:
        """Find payloads of donors that lie, unchanged, where no sound record says what is there."""
        for at in self.choice.donors:
            judged = fitting_gaps(self.choice, self.choice.members[at].bundle, self.sources)
            if judged is not None:
                count = len(judged.found)
                self.choice.members.append(judged)
                self.notes.append(
                    f"found where no record points: {counted(count, 'payload')}, by checksums of"
                    f" {self.choice.members[at].bundle.prefix}"
                )

    # --- the object graph ------------------------------------------------------------------------

    def _choose_graph(self) -> ObjectGraph | None:
        """Take the object graph of the checkpoint, or else of the first donor that has its like."""
        turns = [([], False), *(([donor], False) for donor in self.choice.donors)]
        for donors, keep in [*turns, ([], self.choice.keep)]:
            self.choice.take([GRAPH_KEY], self.sources, self.progress, donors=donors, keep=keep)
            graph = self._graph()
            if graph is not None and self._agrees(graph):
                return graph
            self.choice.taken.pop(GRAPH_KEY, None)
        return None

    def _agrees(self, graph: ObjectGraph) -> bool:
        """Tell whether a graph is of just the tensors that there were, if it is a donor's."""
        ours = self.ours
        if self.choice.taken[GRAPH_KEY].how != "filled":
            return True
        had = {key for key in ours.names() if self.choice.believed(ours.rows[key])} - {GRAPH_KEY}
        found = named(graph, had)
        # A registered saver puts tensors of any names into the same checkpoint.
        whole = bool(graph.savers) or had <= {name for some in found.tensors for name in some}
        return whole and all(map(ours.lost_within, found.missing))

    def _graph(self) -> ObjectGraph | None:
        taken = self.choice.taken.get(GRAPH_KEY)
        if taken is None or taken.boxes:
            self.choice.taken.pop(GRAPH_KEY, None)
            return None
        piece = taken.pieces[0]
        columns = self.choice.members[piece.member].bundle.columns
        tensor = columns.tensor(piece.row)
        if (
            tensor.spec.dtype == "string"
            and not tensor.spec.shape
            and (columns.size[piece.row] <= MAX_BYTES)
        ):
            try:
                values = read_tensor(
                    self.sources, GRAPH_KEY, tensor, TENSORFLOW.decode, verify=False
                )
                return read_graph(bytes(values.item()))
            except CkptError as error:
                self.notes.append(f"the object graph does not parse: {error.message}")
        return None

    def _names(
        self, outlines: Sequence[Outline], graph: ObjectGraph | None
    ) -> tuple[list[str], dict[str, str]]:
        """Return the tensors that there were, as far as is known, and what is known of some."""
        ours = self.ours
        reasons = {key: message for key, message in ours.left_out if not key.startswith("\0")}
        reasons |= dict.fromkeys(ours.orphans, "the record of its slices as a whole is lost")
        believed = [key for key in ours.names() if self.choice.believed(ours.rows[key])]
        names = dict.fromkeys([*believed, *reasons])
        for member in self.choice.members[1:]:
            if member.bundle.prefix == ours.prefix:
                names.update(dict.fromkeys(member.bundle.names()))
        for outline in outlines:
            lost = (key for key in outline.bundle.names() if ours.lost_within(key))
            names.update(dict.fromkeys(lost))
        for key in named(graph, names).missing if graph is not None else ():
            reasons[key] = "the object graph names it, and the index has no record of it"
            names[key] = None
        # What a damaged block says may be no name at all; its bytes have to agree with it.
        doubtful = [
            key
            for key in ours.names()
            if key not in names and self.choice.ours.sound(ours.rows[key])
        ]
        self.doubtful = bool(doubtful) and not self.choice.keep
        if self.doubtful:
            self.notes.append(
                f"in damaged blocks: {counted(len(doubtful), 'record')} that agree with the bytes,"
                " and nothing confirms the names and dtypes; --keep-damaged keeps them"
            )
        names.update(dict.fromkeys(doubtful))
        return list(names), reasons

    # --- the account -----------------------------------------------------------------------------

    def _account(
        self,
        destination: str,
        graph: ObjectGraph | None,
        names: Sequence[str],
        reasons: dict[str, str],
    ) -> Salvaged:
        choice = self.choice
        dropped: tuple[str, ...] = ()
        new = None
        if graph is not None:
            new, dropped = pruned(graph, {*names}, choice.taken)
        saved = [name for name in names if name in choice.taken]
        if not any(name != GRAPH_KEY for name in saved):
            raise self._nothing(names)
        if GRAPH_KEY in names and GRAPH_KEY not in choice.taken:
            self.notes.append("without the object graph TensorFlow restores by name alone")
        labels = [member.bundle.prefix for member in choice.members]
        fates = tuple(
            fate for name in names if (fate := choice.fate(name, labels, reasons)) is not None
        )
        index, sound = tuple(self._index()), self._sound(names)
        if self.source.folder is not None and any(fate.how == "lost" for fate in fates):
            self.notes.append("tf.saved_model.load wants all variables that saved_model.pb names")
        if sound is not None:
            self.notes.append("nothing is wrong with this checkpoint")
        changed = new if new is not None and dropped else None
        assembly = assemble(choice, saved, changed) if sound is None else Assembly(sound, sound)
        wish = self._wish(assembly, destination)
        return Salvaged(
            str(self.source),
            destination,
            len(saved),
            sum(choice.taken[name].how == "intact" for name in saved),
            fates,
            index,
            tuple(choice.ours.sentences),
            dropped,
            not self.complete,
            tuple(self.notes),
            build_plan(wish),
        )

    def _nothing(self, names: Sequence[str]) -> CorruptError:
        first = next(iter(self.choice.ours.wrong.values()), "no record of one could be read")
        reasons = self.notes[-1:] if self.doubtful else [first]
        msg = f"nothing can be saved of {counted(len(names), 'tensor')}: {reasons[0]}"
        return CorruptError(msg, path=str(self.source))

    def _index(self) -> Iterator[str]:
        ours = self.ours
        yield from ours.notes
        yield from map(_told, ours.damage)
        for after, before in () if ours.damage or ours.missing else ours.gaps:
            yield f"it is cut short: keys {_between(after, before)} may be lost"
        for key, message in ours.left_out[:LISTED]:
            yield f"the record of {key!r} is left out: {message}"
        if len(ours.left_out) > LISTED:
            yield f"left out as well: {counted(len(ours.left_out) - LISTED, 'record')}"

    def _sound(self, names: Sequence[str]) -> Catalog | None:
        """Return the catalog of the checkpoint if the ordinary copy of it would do."""
        ours = self.ours
        taken = self.choice.taken
        if ours.damage or ours.gaps or ours.left_out or self.choice.ours.sentences:
            return None
        if any(name not in taken or taken[name].how != "intact" for name in names):
            return None
        try:
            return TENSORFLOW.scan(self.source)
        except CkptError as error:
            self.notes.append(f"it does not open: {error.message}")
            return None

    def _wish(self, assembly: Assembly, destination: str) -> Wish:
        before, after = assembly
        index = self.ours.prefix + INDEX
        paths = [*([index] if os.path.isfile(index) else []), *after.columns.files.values()]
        return Wish(
            TENSORFLOW,
            self.source,
            before,
            after,
            destination,
            "copy",
            stamps=tuple(stamp(path) for path in dict.fromkeys(paths)),
        )


def _order(bundle: Bundle) -> str:
    return bundle.columns.byteorder


def _told(damage: Damage) -> str:
    where = f"bytes {damage.start} to {damage.end}"
    if damage.state == "directory":
        return f"{where}: {damage.message}; blocks were looked for"
    if damage.state == "repaired":
        return f"{where}: one byte was put right: {damage.message}"
    found = "its records are in doubt" if damage.state == "doubtful" else "its records are lost"
    keys = _between(damage.after, damage.before)
    return f"the block at {where} is damaged, and {found}, of keys {keys}: {damage.message}"


def _between(after: str | None, before: str | None) -> str:
    if after is None and before is None:
        return "of any name"
    if after is None:
        return f"before {before!r}"
    return f"after {after!r}" if before is None else f"between {after!r} and {before!r}"
