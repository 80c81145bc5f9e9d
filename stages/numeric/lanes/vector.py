"""A vector of `LANES` numbers as a value in compiled code: loaded, combined by operators, stored."""

from __future__ import annotations

import hashlib
import operator
import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.caching import FunctionCache
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

# One 512-bit register of float32. The compiler splits it where registers are shorter. Results are
# the same bit for bit, as lanes never mix and no product is contracted with a sum.
LANES = 16

# A vector; and a contiguous array of any shape, whose elements are addressed by their flat index.
Lanes = Any
Flat = Any


def kernel(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - a numba dispatcher
    """Compile a function, which runs without the GIL, and keep the machine code on disk.

    The code is made again when the source of any kernel here changes. Numba alone would look at the
    function's own file, but not at what it calls. Where numba has no folder to write to, the code is
    kept in a temporary one. A cache that fails later, say on a full disk, costs a warning and time.
    """
    function.__qualname__ = f"{function.__qualname__}_{_digest()}"
    dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # numba found no folder that it can write to
        folder = _temporary_cache()
        if folder:
            # Numba looks at the setting now. Other packages' functions keep theirs.
            settings = vars(config)
            before, settings["CACHE_DIR"] = settings["CACHE_DIR"], folder
            try:
                dispatcher._cache = _Cache(function)
            finally:
                settings["CACHE_DIR"] = before
    return dispatcher


class _Cache(FunctionCache):
    """A function's code on disk. If it can't be read or written, the function is compiled.

    Numba's own raises then, in the middle of the computation that calls the function.
    """

    def load_overload(self, sig: object, target_context: object) -> object:
        """Return the code for a signature; None if there is none that can be used."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a damaged file raises anything
            _warn_of_cache(self.cache_path, error)
            return None

    def save_overload(self, sig: object, data: object) -> None:
        """Keep the code for a signature, if that can be done."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn_of_cache(self.cache_path, error)


_warned_of: set[str] = set()


def _warn_of_cache(folder: str, error: Exception) -> None:
    """Warn, once for each folder."""
    if folder in _warned_of:
        return
    _warned_of.add(folder)
    warnings.warn(
        f"compiled code can't be kept in or taken from {folder} ({type(error).__name__}: {error}), so melmill "
        "compiles it again: remove the folder, or set NUMBA_CACHE_DIR to one that can be written to",
        RuntimeWarning,
        stacklevel=3,
    )


@cache
def _temporary_cache() -> str:
    """Return the user's own cache in the temporary folder, which all processes share; warn.

    Empty: there is none, and every process compiles for itself. Numba runs what it finds in a cache,
    so nobody else may be able to write there.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"melmill-numba-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        found = str(folder) if is_own and os.access(folder, os.W_OK | os.X_OK) else ""
    except OSError:
        found = ""
    what = f"keeps compiled code in {found}" if found else "compiles its code in every process"
    warnings.warn(
        f"numba has no folder where it may keep compiled code, so melmill {what}: "
        "set NUMBA_CACHE_DIR to a folder that can be written to",
        RuntimeWarning,
        stacklevel=2,
    )
    return found


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - a numba dispatcher
    """Compile a function into its callers."""
    return njit(error_model="numpy", forceinline=True)(function)


@cache
def _digest() -> str:
    here = Path(__file__).parent
    sources = sorted([*here.glob("*.py"), *here.with_name("compiled").glob("*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _operation(typing: Callable[..., Any]) -> Any:  # noqa: ANN401
    return intrinsic(typing)


class LanesType(types.Type):
    """The compiler's type of a vector."""

    def __init__(self, dtype: Any) -> None:  # noqa: ANN401
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(LanesType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: LanesType) -> None:  # noqa: ANN401
        element = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, LANES))


@_operation
def load(_: Any, array: Any, start: Any) -> Any:  # noqa: ANN401
    """Return the `LANES` elements from flat index `start` on."""
    kind = LanesType(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        place = _place(context, builder, signature.args[0], args)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp), generate


@_operation
def store(_: Any, array: Any, start: Any, vector: Any) -> Any:  # noqa: ANN401
    """Overwrite the `LANES` elements from flat index `start` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        place = _place(context, builder, signature.args[0], args)
        builder.store(args[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@_operation
def zeros(_: Any, array: Any) -> Any:  # noqa: ANN401
    """Return a vector of zeros of the array's dtype."""
    kind = LanesType(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array), generate


@_operation
def root(_: Any, vector: Any) -> Any:  # noqa: ANN401
    """Return the square root of every lane."""
    return vector(vector), _call("llvm.sqrt", 1)


@_operation
def power(_: Any, vector: Any, exponent: Any) -> Any:  # noqa: ANN401
    """Return every lane raised to a scalar exponent; slow, a lane at a time."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        call = _call("llvm.pow", 2)
        return call(context, builder, signature, (args[0], _spread(builder, args[1], args[0].type)))

    return vector(vector, vector.dtype), generate


@_operation
def larger(_: Any, vector: Any, other: Any) -> Any:  # noqa: ANN401
    """Return the larger of every lane and `other`, a vector or a scalar."""
    return _choice(vector, other, "<")


@_operation
def smaller(_: Any, vector: Any, other: Any) -> Any:  # noqa: ANN401
    """Return the smaller of every lane and `other`, a vector or a scalar."""
    return _choice(vector, other, ">")


@_operation
def kept(_: Any, vector: Any, size: Any, least: Any) -> Any:  # noqa: ANN401
    """Return every lane of a vector whose `size` exceeds its `least`, and 0 elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.select(builder.fcmp_ordered(">", args[1], args[2]), args[0], ir.Constant(args[0].type, None))

    return vector(vector, size, least), generate


def _choice(vector: Any, other: Any, worse: str) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        mine, its = args[0], args[1]
        if its.type != mine.type:
            its = _spread(builder, its, mine.type)
        return builder.select(builder.fcmp_unordered(worse, mine, its), its, mine)

    return vector(vector, other if isinstance(other, LanesType) else vector.dtype), generate


def _place(context: Any, builder: Any, kind: Any, args: Any) -> Any:  # noqa: ANN401
    data = context.make_array(kind)(context, builder, value=args[0]).data
    lanes = ir.VectorType(data.type.pointee, LANES)
    return builder.bitcast(builder.gep(data, [args[1]], inbounds=True), lanes.as_pointer())


def _spread(builder: Any, scalar: Any, lanes: ir.VectorType) -> Any:  # noqa: ANN401
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _call(name: str, n_args: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        lanes = args[0].type
        bits = "f32" if lanes.element == ir.FloatType() else "f64"
        kind = ir.FunctionType(lanes, [lanes] * n_args)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{LANES}{bits}"), args)

    return generate


def _define(symbol: Callable[..., Any], of_floats: str, of_integers: str) -> None:
    """Define an operator between vectors, and between a vector of floats and a float of any precision.

    An instruction that is empty leaves the operator undefined.
    """

    @infer_global(symbol)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, _: Any) -> Any:  # noqa: ANN401
            left, right = args
            lanes = left if isinstance(left, LanesType) else right
            others = {type(left), type(right)} - {LanesType}
            if not isinstance(lanes, LanesType) or not others <= {types.Float}:
                return None
            is_integer = isinstance(lanes.dtype, types.Integer)
            if not (of_integers if is_integer else of_floats) or (is_integer and left != right):
                return None
            scalar = lanes.dtype
            return signature(
                lanes,
                left if isinstance(left, LanesType) else scalar,
                right if isinstance(right, LanesType) else scalar,
            )

    @lower_builtin(symbol, LanesType, LanesType)
    @lower_builtin(symbol, LanesType, types.Float)
    @lower_builtin(symbol, types.Float, LanesType)
    def _lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        lanes = next(arg.type for arg in args if isinstance(arg.type, ir.VectorType))
        whole = (arg if arg.type == lanes else _spread(builder, arg, lanes) for arg in args)
        return getattr(builder, of_integers if isinstance(lanes.element, ir.IntType) else of_floats)(*whole)


for _symbol, _of_floats, _of_integers in (
    (operator.add, "fadd", "add"), (operator.sub, "fsub", "sub"), (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", ""), (operator.rshift, "", "ashr"),
):  # fmt: skip
    _define(_symbol, _of_floats, _of_integers)
