"""Tensors that one kernel after another derives from their own stored values, as columns.

``** *= 0.5`` over a million tensors is one recipe and a number for every name, not a million
objects. NumPy is imported only when there is such an edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptkit.model import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.kernels import Kernel
    from ckptkit.model import Tensor

    Int32s = NDArray[np.int32]
    Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Elementwise kernels over a whole stored tensor, each of which sees what the last one gave.

    Attributes:
        takes: The dtype of the stored values.
        steps: The kernels in order, each with the dtype that it gives; none for the values as
            they are.
    """

    takes: str
    steps: tuple[tuple[Kernel, str], ...] = ()

    @property
    def gives(self) -> str:
        """The dtype of the result."""
        return self.steps[-1][1] if self.steps else self.takes

    def then(self, kernel: Kernel, dtype: str) -> Recipe:
        """Return the recipe with one more kernel."""
        return Recipe(self.takes, (*self.steps, (kernel, dtype)))

    def tensor(self, stored: Tensor) -> Tensor:
        """Return what the recipe makes of a stored tensor."""
        made = stored
        for kernel, dtype in self.steps:
            made = made.derive(kernel, (made,), spec=TensorSpec(dtype, stored.spec.shape))
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Bulk:
    """Which names of a catalog are derived by which recipe.

    Attributes:
        recipes: The recipes; some may be in use no more.
        number: int32, for every name the number of its recipe, -1 for none.
    """

    recipes: tuple[Recipe, ...]
    number: Int32s

    @classmethod
    def none(cls, count: int) -> Bulk:
        """Return that of ``count`` names without a recipe."""
        import numpy as np

        return cls((), np.full(count, -1, np.int32))

    @property
    def count(self) -> int:
        """How many names have a recipe."""
        return int((self.number >= 0).sum())

    def at(self) -> Int64s:
        """Return the positions of the names that have a recipe, which rise."""
        import numpy as np

        return np.flatnonzero(self.number >= 0)

    def recipe(self, position: int) -> Recipe | None:
        """Return the recipe of a name."""
        number = int(self.number[position])
        return self.recipes[number] if number >= 0 else None

    def kept(self, mask: Sequence[bool]) -> Bulk:
        """Return that of the names for which ``mask`` is true."""
        import numpy as np

        return Bulk(self.recipes, self.number[np.array(mask, bool)])

    def followed_by(self, positions: Sequence[int | None]) -> Bulk:
        """Return that with further names, each as the name at a position, or without a recipe."""
        import numpy as np

        added = [-1 if at is None else int(self.number[at]) for at in positions]
        return Bulk(self.recipes, np.concatenate([self.number, np.array(added, np.int32)]))

    def without(self, positions: Sequence[int]) -> Bulk:
        """Return that in which some names have no recipe."""
        number = self.number.copy()
        number[positions] = -1
        return Bulk(self.recipes, number)


def as_int64s(numbers: object) -> Int64s:
    """Return numbers as an array, those of a range without going through them."""
    import numpy as np

    if isinstance(numbers, range):
        return np.arange(numbers.start, numbers.stop, numbers.step, dtype=np.int64)
    return np.asarray(numbers, dtype=np.int64)
