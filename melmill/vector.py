"""A vector of `LANES` numbers as a value in compiled code: loaded, combined by operators, stored."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

# One 512-bit register of float32. The compiler splits it where registers are shorter. Results are
# the same bit for bit, as lanes never mix and no product is contracted with a sum.
LANES = 16

# A vector; and a contiguous array of any shape, whose elements are addressed by their flat index.
Lanes = Any
Flat = Any


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - a numba dispatcher
    """Compile a function into its callers."""
    return njit(error_model="numpy", forceinline=True)(function)


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
