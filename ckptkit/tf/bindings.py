"""Our functions under TensorFlow's own names, in every module that has them, and back again.

TensorFlow's code and that of others then reads checkpoints through :mod:`ckptkit.tf` unchanged:
what lists variables, what converts, and of restoring what asks a reader. Values that an operation
restores (``RestoreV2``) are still read by that operation.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ckptkit.tf import finding
from ckptkit.tf.errors import UnimplementedError
from ckptkit.tf.reader import ELSEWHERE, NewCheckpointReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Function = Callable[..., Any]

_MANAGEMENT: Final = "tensorflow.python.checkpoint.checkpoint_management"
_UTILS: Final = "tensorflow.python.training.checkpoint_utils"
_READER: Final = "tensorflow.python.training.py_checkpoint_reader"

HOMES: Final[dict[str, tuple[str, Callable[..., Any]]]] = {
    "NewCheckpointReader": (_READER, NewCheckpointReader),
    "load_checkpoint": (_UTILS, finding.load_checkpoint),
    "list_variables": (_UTILS, finding.list_variables),
    "load_variable": (_UTILS, finding.load_variable),
    "latest_checkpoint": (_MANAGEMENT, finding.latest_checkpoint),
    "checkpoint_exists": (_MANAGEMENT, finding.checkpoint_exists),
    "checkpoint_exists_internal": (_MANAGEMENT, finding.checkpoint_exists),
}
"""TensorFlow's functions by name: the module that each is from, and what takes its place."""


class Binding(NamedTuple):
    """A name in a module that is bound to a function.

    Attributes:
        module: The module, by name.
        name: The name in it.
        function: What TensorFlow calls the function.
    """

    module: str
    name: str
    function: str


class _Bindings:
    """Whether TensorFlow's names are bound to our functions, and who wants that."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lasting = False
        self._contexts = 0
        self._ours: dict[str, Function] = {}
        self._theirs: dict[str, Function] = {}

    def want(self, *, lasting: bool | None = None, contexts: int = 0) -> None:
        """Note who wants our functions bound, and bind or unbind them."""
        with self._lock:
            before = self._lasting, self._contexts
            self._lasting = self._lasting if lasting is None else lasting
            self._contexts += contexts
            try:
                self._agree()
            except BaseException:
                self._lasting, self._contexts = before
                raise

    def _agree(self) -> None:
        wanted = self._lasting or self._contexts > 0
        if wanted and not self._ours:
            self._bind()
        elif not wanted and self._ours:
            ours, self._ours = self._ours, {}
            self._rebind(ours, self._theirs)
            self._theirs = {}

    def _bind(self) -> None:
        if find_spec("tensorflow") is None:
            msg = (
                "tensorflow is not installed, so that there is nothing to put ckptkit.tf under;"
                " use its functions themselves, or: pip install ckptkit[tensorflow]"
            )
            raise ModuleNotFoundError(msg, name="tensorflow")
        self._theirs = {
            name: getattr(import_module(home), name) for name, (home, _) in HOMES.items()
        }
        self._ours = {
            name: _in_place_of(self._theirs[name], function)
            for name, (_, function) in HOMES.items()
        }
        self._rebind(self._theirs, self._ours)

    def _rebind(self, old: dict[str, Function], new: dict[str, Function]) -> None:
        for module, binding in _bindings(old):
            setattr(module, binding.name, new[binding.function])

    def now(self) -> list[Binding]:
        """Return where our functions are bound."""
        with self._lock:
            return sorted(binding for _, binding in _bindings(self._ours))


def _bindings(functions: dict[str, Function]) -> Iterator[tuple[Any, Binding]]:
    """Yield every name in a loaded module that is bound to one of some functions."""
    wanted = {id(function): name for name, function in functions.items()}
    for module_name, module in list(sys.modules.items()):
        # Modules that import when they are asked for a name are not asked.
        try:
            names = list(object.__getattribute__(module, "__dict__").items())
        except AttributeError:
            continue
        for name, value in names:
            function = wanted.get(id(value))
            if function is not None:
                yield module, Binding(module_name, name, function)


def _in_place_of(theirs: Function, ours: Function) -> Function:
    """Return our function, which leaves to TensorFlow what only that can read."""
    first = next(iter(inspect.signature(ours).parameters))

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if _is_elsewhere(args[0] if args else kwargs.get(first)):
            return theirs(*args, **kwargs)
        try:
            return ours(*args, **kwargs)
        except UnimplementedError:
            return theirs(*args, **kwargs)

    # A decorator of TensorFlow that was copied along would lead whoever unwraps it past ours.
    vars(function).pop("_tf_decorator", None)
    return function


def _is_elsewhere(path: object) -> bool:
    text = path.decode("utf-8", "replace") if isinstance(path, bytes) else path
    return isinstance(text, str) and ELSEWHERE.match(text) is not None


_BINDINGS: Final = _Bindings()


def install() -> None:
    """Put the functions of :mod:`ckptkit.tf` under TensorFlow's names; imports TensorFlow.

    Every loaded module that has bound one of these names gets ours, and so does every module that
    is imported later: ``tf.train.load_checkpoint``, ``list_variables``, ``load_variable`` and
    ``latest_checkpoint``, ``tf.compat.v1.train.NewCheckpointReader`` and ``checkpoint_exists``,
    and TensorFlow's own code that calls them, such as ``init_from_checkpoint``. Paths of file
    systems that only TensorFlow knows, and checkpoints that ckptkit does not read, are left to
    TensorFlow. A second call does nothing.

    Raises:
        ModuleNotFoundError: TensorFlow is not installed.
    """
    _BINDINGS.want(lasting=True)


def uninstall() -> None:
    """Give TensorFlow its own functions back, once every :func:`installed` is left as well."""
    _BINDINGS.want(lasting=False)


@contextmanager
def installed() -> Iterator[None]:
    """Have :func:`install` hold for a block; blocks may nest, and run in several threads."""
    _BINDINGS.want(contexts=1)
    try:
        yield
    finally:
        _BINDINGS.want(contexts=-1)


def bound_names() -> list[Binding]:
    """Return the names that are bound to our functions now."""
    return _BINDINGS.now()
