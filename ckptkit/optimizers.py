"""The state of optimizers, told by the names of tensors where nothing else tells it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.catalog import Catalog

SLOTS: Final = frozenset(
    {
        *("Adam", "Adam_1", "AdaMax", "AdaMax_1", "adam_m", "adam_v"),
        *("Momentum", "RMSProp", "RMSProp_1", "RMSProp_2"),
        *("Adagrad", "AdagradDA", "AdagradDA_1", "ProximalAdagrad"),
        *("Adadelta", "Adadelta_1", "Ftrl", "Ftrl_1", "LARSOptimizer"),
    }
)
"""What optimizers of TensorFlow 1 call what they keep for a variable, behind its name."""

_POWERS: Final = re.compile(r"(?:.*/)?beta[12]_power(?:_\d+)?", re.DOTALL)
_OF_KERAS: Final = re.compile(r"optimizer/(?:.*/)?vars/\d+|optimizer_weights/.+", re.DOTALL)


def state_by_name(catalog: Catalog) -> list[int]:
    """Return the positions of the tensors that are named as the state of an optimizer.

    In checkpoints of TensorFlow 1 these are the slots, of the shape of the variable that they are
    named after, and powers of betas that go with them; in files of Keras what is in the folder of
    the optimizer.
    """
    names, shapes = catalog.names, catalog.shapes()
    slots = []
    for at, name in enumerate(names):
        variable, _, slot = name.rpartition("/")
        if slot in SLOTS and _there(catalog, shapes, variable, shapes[name]):
            slots.append(at)
    if slots:
        slots += [at for at, name in enumerate(names) if _POWERS.fullmatch(name)]
    return sorted([*slots, *(at for at, name in enumerate(names) if _OF_KERAS.fullmatch(name))])


def _there(
    catalog: Catalog, shapes: Mapping[str, tuple[int, ...]], name: str, shape: tuple[int, ...]
) -> bool:
    """Tell whether there is such a variable, also without a scope of the optimizer before it."""
    while name:
        if name in catalog and shapes[name] == shape:
            return True
        name = name.partition("/")[2]
    return False
