"""`Param` beside the bare array that it holds, and `ParamDict` beside a dict."""

import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
from tests.dags import Cache, Group, Weight, structure

Function = Callable[..., Any]

FLOATS = jnp.array([[1.5, -2.0], [3.0, -0.5]]), jnp.array([[2.0, 1.0], [-1.0, 3.0]])
INTS = jnp.array([[5, -7], [12, 3]]), jnp.array([[2, 1], [3, 2]])
BOOLS = jnp.array([[True, False], [True, True]]), jnp.array([[True, True], [False, True]])
NUMBERS: dict[Any, Any] = {jnp.float32: 3.0, jnp.int32: 3, jnp.bool: True}

ARITHMETIC: list[Function] = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv]
ARITHMETIC += [operator.mod, operator.pow, operator.matmul]
BITWISE: list[Function] = [operator.and_, operator.or_, operator.xor]
SHIFTS: list[Function] = [operator.lshift, operator.rshift]
COMPARISONS: list[Function] = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]

Operands = tuple[jax.Array, jax.Array]
CHECKED: list[Function] = [*ARITHMETIC, divmod]
BINARY: list[tuple[Function, Operands]] = [
    *((op, operands) for op in CHECKED for operands in (FLOATS, INTS)),
    *((op, operands) for op in BITWISE for operands in (INTS, BOOLS)),
    *((op, INTS) for op in SHIFTS),
    *((op, operands) for op in COMPARISONS for operands in (FLOATS, INTS, BOOLS)),
]
# operator.iadd and operator.add, and so on.
AUGMENTED = {getattr(operator, f"i{op.__name__.strip('_')}"): op for op in [*ARITHMETIC, *BITWISE, *SHIFTS]}
UNARY: list[tuple[Function, Operands]] = [
    *((op, operands) for op in (operator.neg, operator.pos, operator.abs) for operands in (FLOATS, INTS)),
    *((operator.invert, operands) for operands in (INTS, BOOLS)),
]


def as_number(array: jax.Array) -> Any:
    return NUMBERS[array.dtype.type]


def as_numpy_number(array: jax.Array) -> Any:
    return array.dtype.type(as_number(array))


def bare(array: jax.Array) -> jax.Array:
    return array


# How the other side of an operator is given; the oracle has the same there, or the bare array for a parameter.
OTHERS: dict[str, Function] = {
    "array": bare,
    "Param": px.Param,
    "Weight": Weight,
    "numpy": np.asarray,
    "number": as_number,
    "numpy number": as_numpy_number,
}
EVERY_OTHER = pytest.mark.parametrize("other", OTHERS)


def name_of(value: object) -> str | None:
    if isinstance(value, tuple):
        return str(value[0].dtype)
    return value.__name__ if callable(value) and hasattr(value, "__name__") else None


def assert_same(found: Any, expected: Any) -> None:
    """The same type and, for arrays, the same shape, dtype, weak type and numbers."""
    assert type(found) is type(expected)
    if isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, (jax.Array, np.ndarray)):
        assert found.dtype == expected.dtype
        assert getattr(found, "weak_type", None) == getattr(expected, "weak_type", None)
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def takes(op: Function, other: str) -> bool:
    return not (op in (operator.matmul, operator.imatmul) and "number" in other)


def test_no_operator_of_an_array_is_missing() -> None:
    of_array = {name for name in dir(operator) if name.startswith("__")} | {"__divmod__", "__round__"}
    of_array |= {f"__r{name[2:]}" for name in of_array}
    of_array &= set(dir(type(jnp.ones(1)))) - set(dir(object)) - {"__setitem__"}  # which arrays refuse
    assert {"__add__", "__radd__", "__matmul__", "__rdivmod__", "__getitem__", "__index__"} <= of_array
    assert of_array <= set(dir(px.Param))


@pytest.mark.parametrize(("op", "operands"), UNARY, ids=name_of)
def test_unary(op: Function, operands: Operands) -> None:
    for array in operands:
        assert_same(op(px.Param(array)), op(array))


@pytest.mark.parametrize(("op", "operands"), BINARY, ids=name_of)
@EVERY_OTHER
def test_binary(op: Function, operands: Operands, other: str) -> None:
    if not takes(op, other):
        return
    left, right = operands
    if op is operator.pow and other.endswith("number") and left.dtype == jnp.float32:
        left = jnp.abs(left)
    for make in (px.Param, Weight):
        assert_same(op(make(left), OTHERS[other](right)), op(left, px.get(OTHERS[other](right))))
        assert_same(op(OTHERS[other](left), make(right)), op(px.get(OTHERS[other](left)), right))


@pytest.mark.parametrize("op", AUGMENTED, ids=lambda op: op.__name__)
@EVERY_OTHER
def test_augmented_assignment_changes_the_parameter_in_place(op: Function, other: str) -> None:
    if not takes(op, other):
        return
    left, right = INTS
    if op is operator.itruediv:
        left, right = FLOATS
    param = alias = px.Param(left)
    holder = Group([param])
    param = op(param, OTHERS[other](right))
    assert param is alias
    assert vars(holder)["a"] is alias
    assert_same(alias.get(), AUGMENTED[op](left, px.get(OTHERS[other](right))))


def test_augmented_statements_keep_every_alias() -> None:
    class Model(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = px.Param(jnp.array([1, 2]))
            self.layers = [self.weight]

    model = Model()
    p = model.weight
    p += 5
    p -= 1
    p *= 3
    p //= 2
    p %= 7
    p **= 2
    p &= 0b11
    p |= 0b1000
    p ^= 0b1
    p <<= 2
    p >>= 1
    model.weight += 1
    model.layers[0] += 1
    value = np.array([1, 2])
    value = ((((((value + 5 - 1) * 3) // 2) % 7) ** 2) & 0b11) | 0b1000
    value = (((value ^ 0b1) << 2) >> 1) + 2
    assert p is model.weight is model.layers[0]
    np.testing.assert_array_equal(p.get(), value)

    q = p
    q.set(jnp.eye(2))
    q @= jnp.array([[1.0, 2.0], [3.0, 4.0]])
    q /= 2.0
    np.testing.assert_array_equal(p.get(), [[0.5, 1.0], [1.5, 2.0]])


@pytest.mark.parametrize("op", AUGMENTED, ids=lambda op: op.__name__)
def test_augmented_assignment_to_what_is_not_a_parameter(op: Function) -> None:
    left, right = FLOATS if op is operator.itruediv else INTS
    assert_same(op(left, px.Param(right)), AUGMENTED[op](left, right))
    assert_same(op(np.array(left), px.Param(right)), op(np.array(left), right))


@pytest.mark.parametrize("op", sorted({op for op, _ in BINARY}, key=str), ids=name_of)
@EVERY_OTHER
def test_binary_with_a_cleared_parameter(op: Function, other: str) -> None:
    for make in (px.Param, Weight):
        for operands in ((make(), OTHERS[other](INTS[1])), (OTHERS[other](INTS[0]), make()), (make(), make())):
            with pytest.raises(AttributeError, match=rf"{make.__name__} is cleared.*None.*set it"):
                op(*operands)


@pytest.mark.parametrize("op", AUGMENTED, ids=lambda op: op.__name__)
def test_augmented_assignment_with_a_cleared_parameter(op: Function) -> None:
    for left, right in ((px.Param(), INTS[1]), (px.Param(INTS[0]), px.Param()), (INTS[0], px.Param())):
        before = px.get(left)
        with pytest.raises(AttributeError, match="Param is cleared"):
            op(left, right)
        assert px.get(left) is before


class At:
    """`at[1:, 0]` is a function that takes this index of its argument."""

    def __getitem__(self, index: Any) -> Function:
        return lambda array: array[index]


at = At()
VECTOR = jnp.array([1.25, -2.5, 3.75])
MATRIX = FLOATS[0]
SCALAR = jnp.array(-2.5)
INTEGER = jnp.array(2)

ATTRIBUTES = ["shape", "ndim", "size", "T", "mT", "nbytes", "itemsize", "weak_type", "sharding"]
METHODS = ["devices", "sum", "max", "argmax", "flatten", "tolist", "block_until_ready"]
FUNCTIONS = ["sum", "mean", "zeros_like", "shape", "sin", "asarray", "array", "argmax"]
USES: list[tuple[str, Function, jax.Array]] = [
    ("round", round, VECTOR),
    ("round to 1", lambda a: round(a, 1), VECTOR),
    ("round ndigits", lambda a: round(a, ndigits=0), SCALAR),
    ("abs", abs, MATRIX),
    ("float", float, SCALAR),
    ("int", int, SCALAR),
    ("complex", complex, SCALAR),
    ("complex of complex", complex, jnp.array(1 + 2j)),
    ("operator.index", operator.index, INTEGER),
    ("hex", hex, INTEGER),
    ("range", lambda a: list(range(a)), INTEGER),
    ("an index of a list", lambda a: ["a", "b", "c"][a], INTEGER),
    ("math.floor", math.floor, SCALAR),
    ("math.sqrt", math.sqrt, INTEGER),
    ("pow", lambda a: pow(a, 2), MATRIX),
    ("len", len, VECTOR),
    ("list", list, VECTOR),
    ("rows", list, MATRIX),
    ("zip", lambda a: list(zip(a, a, strict=True)), VECTOR),
    ("unpacking", lambda a: (lambda x, y, z: (z, y, x))(*a), VECTOR),
    ("reversed", lambda a: list(reversed(a)), VECTOR),
    ("in", lambda a: (-2.5 in a, 7.0 in a), VECTOR),
    ("format", lambda a: f"{a:.1f}", SCALAR),
    ("index", at[1], VECTOR),
    ("negative index", at[-1], MATRIX),
    ("slice", at[1:], VECTOR),
    ("many", at[1, ::-1], MATRIX),
    ("new axis", at[None, ..., None], VECTOR),
    ("mask", at[np.array([True, False, True])], VECTOR),
    ("array index", at[jnp.array([2, 0])], VECTOR),
    ("numpy.asarray", np.asarray, MATRIX),
    ("numpy.asarray dtype", lambda a: np.asarray(a, dtype=np.float64), MATRIX),
    ("numpy.asarray int", lambda a: np.asarray(a, np.int32), MATRIX),
    ("numpy.array", np.array, MATRIX),
    ("numpy.array dtype", lambda a: np.array(a, np.float16), MATRIX),
    ("numpy.sin", np.sin, MATRIX),
    ("numpy.add", lambda a: np.add(np.ones(3, np.float32), a), VECTOR),
    ("numpy.concatenate", lambda a: np.concatenate([a, a]), VECTOR),
    ("dtype", lambda a: a.dtype, INTEGER),
    ("real", lambda a: a.real, VECTOR),
    ("at", lambda a: a.at[1].set(0.0), VECTOR),
    ("sum axis", lambda a: a.sum(axis=0, keepdims=True), MATRIX),
    ("mean", lambda a: a.mean((0, 1)), MATRIX),
    ("dot", lambda a: a.dot(a), MATRIX),
    ("astype", lambda a: a.astype(jnp.int32), VECTOR),
    ("reshape", lambda a: a.reshape(4), MATRIX),
    ("reshape tuple", lambda a: a.reshape((1, 4)), MATRIX),
    ("item", lambda a: a.item(), SCALAR),
    ("jnp.dot", lambda a: jnp.dot(a, a), VECTOR),
    ("jnp.matmul", lambda a: jnp.matmul(MATRIX, a), MATRIX),
    ("jnp.einsum", lambda a: jnp.einsum("ij,kj->ik", a, a), MATRIX),
    ("jnp.maximum", lambda a: jnp.maximum(a, 0.0), VECTOR),
    ("jnp.where", lambda a: jnp.where(a > 0, a, 0.0), VECTOR),
    ("jnp.concatenate", lambda a: jnp.concatenate([a, VECTOR]), VECTOR),
    ("jnp.stack", lambda a: jnp.stack([a, VECTOR]), VECTOR),
    ("jnp.reshape", lambda a: jnp.reshape(a, (3, 1)), VECTOR),
    ("jnp.broadcast_to", lambda a: jnp.broadcast_to(a, (2, 3)), VECTOR),
    ("jnp.linalg.norm", jnp.linalg.norm, VECTOR),
    ("jax.nn.relu", jax.nn.relu, VECTOR),
    ("jax.nn.softmax", jax.nn.softmax, VECTOR),
    *((name, operator.attrgetter(name), MATRIX) for name in ATTRIBUTES),
    *((f"{name}()", operator.methodcaller(name), MATRIX) for name in METHODS),
    *((f"jnp.{name}", getattr(jnp, name), array) for name in FUNCTIONS for array in (VECTOR, MATRIX)),
]
EVERY_USE = pytest.mark.parametrize(("use", "array"), [use[1:] for use in USES], ids=[use[0] for use in USES])


@EVERY_USE
def test_a_param_is_used_as_its_array(use: Function, array: jax.Array) -> None:
    assert_same(use(px.Param(array)), use(array))


@EVERY_USE
def test_no_use_of_a_cleared_param(use: Function, array: jax.Array) -> None:
    with pytest.raises(AttributeError, match="Param is cleared"):
        use(px.Param())


@pytest.mark.parametrize(
    ("index", "bare_index"),
    [
        (px.Param(jnp.array([2, 0])), [2, 0]),
        (px.Param(INTEGER), 2),
        ((px.Param(INTEGER), slice(None)), (2, slice(None))),
        ((slice(px.Param(INTEGER)), px.Param(jnp.array([1, 1, 0]))), (slice(2), [1, 1, 0])),
        ((..., px.static(1)), (..., 1)),
    ],
    ids=["rows", "row", "tuple", "slice", "static"],
)
def test_an_index_may_hold_parameters(index: Any, bare_index: Any) -> None:
    array = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    found = px.Param(jnp.asarray(array))[index]
    assert isinstance(found, jax.Array)
    np.testing.assert_array_equal(found, array[bare_index])


def test_iteration_over_a_scalar_fails_as_over_its_array() -> None:
    uses: list[Function] = [iter, len]
    for use in uses:
        for scalar in (SCALAR, px.Param(SCALAR)):
            with pytest.raises(TypeError, match=r"0-d|unsized"):
                use(scalar)


@pytest.mark.parametrize("copy", [None, True, False])
@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
def test_numpy_copies_as_asked(dtype: Any, copy: bool | None) -> None:
    if copy is False and dtype is np.float64:
        for value in (VECTOR, px.Param(VECTOR)):
            with pytest.raises(ValueError, match="copy"):
                np.array(value, dtype=dtype, copy=copy)
        return
    found, expected = (np.array(value, dtype=dtype, copy=copy) for value in (px.Param(VECTOR), VECTOR))
    assert_same(found, expected)
    assert found.flags.writeable == expected.flags.writeable


def test_what_an_operator_does_not_take_fails_as_for_the_array() -> None:
    for value in (VECTOR, px.Param(VECTOR)):
        for left, right in ((value, "a"), (value, None), (value, {}), ([1.0, 2.0, 3.0], value)):
            with pytest.raises(TypeError, match="unsupported operand"):
                operator.add(left, right)
        with pytest.raises(TypeError, match="item assignment"):
            operator.setitem(value, 0, 1.0)  # type: ignore[call-overload]  # this is what is tested
    with pytest.raises(TypeError, match=r"^Param does not support item assignment, .* param\.set\(param\.at\[index\]"):
        operator.setitem(px.Param(VECTOR), 0, 1.0)  # type: ignore[call-overload]  # this is what is tested


def test_a_name_that_arrays_lack_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="shpae"):
        px.Param(VECTOR).shpae  # type: ignore[attr-defined]  # noqa: B018  # this is what is tested
    assert not hasattr(px.Param(VECTOR), "shpae")
    assert not hasattr(px.Param(), "shape")
    assert not px.Param(VECTOR).frozen


def test_identity_is_what_is_hashed() -> None:
    p, q = px.Param(1.0), px.Param(1.0)
    assert len({p, q, p}) == 2


def test_arithmetic_inside_a_trace() -> None:
    def f(x: jax.Array) -> Any:
        p = px.Param(x)
        p *= p + x
        return (1.0 - p).sum() / p.size

    np.testing.assert_allclose(jax.jit(f)(VECTOR), (1.0 - 2.0 * np.square(VECTOR)).mean(), rtol=1e-6)
    # d/dx (1 - 2 x²)/3
    np.testing.assert_allclose(jax.grad(f)(VECTOR), -4.0 * VECTOR / 3.0, rtol=1e-6)


def test_param_holds_the_very_thing_that_it_is_given() -> None:
    for value in (VECTOR, np.asarray(VECTOR), 1.0, {"a": VECTOR}, [VECTOR, None], None):
        param = px.Param(value)
        assert param.get() is value
        assert isinstance(param, px.DynamicParam)
        assert param.set(None).get() is None
    assert px.Param().get() is None


def test_param_dict_holds_the_very_dict_that_it_is_given() -> None:
    values = {"u": VECTOR}
    param = px.ParamDict(values)
    assert isinstance(param, px.DynamicParam)
    assert not isinstance(param, px.Param)
    assert param.get() is values
    assert param["u"] is VECTOR
    param["h"] = MATRIX
    assert values == {"u": VECTOR, "h": MATRIX}
    assert param.get("h") is MATRIX
    assert "h" in param
    assert "e" not in param
    assert list(param) == ["u", "h"]
    param["u"] = px.Param(SCALAR)
    assert values["u"] is SCALAR


@pytest.mark.parametrize("param", [Cache(), *map(px.ParamDict, (None, {}, {"h": 1})), px.ParamDict()])
def test_param_dict_without_a_key(param: px.ParamDict) -> None:
    assert "u" not in param
    assert param.get("u") is None
    assert param.get("u", 3) == 3
    with pytest.raises(KeyError, match="u"):
        param["u"]


def test_param_dict_is_cleared_and_filled_again() -> None:
    param = px.ParamDict()
    assert param.get() is None
    assert list(param) == []
    param["u"] = VECTOR
    assert param.get() == {"u": VECTOR}
    assert param.set(None) is param
    assert "u" not in param
    assert param.get() is None
    values = {"h": MATRIX}
    assert param.set(values).get() is values


def test_reading_a_cleared_param_dict_does_not_fill_it() -> None:
    param = px.ParamDict()
    param.get("u", 1)
    assert "u" not in param
    assert list(param) == []
    assert param.get() is None


def test_a_stored_none_is_found() -> None:
    param = px.ParamDict({"u": None})
    assert "u" in param
    assert param.get("u", 1) is None


def test_cache_marks_and_does_nothing_else() -> None:
    assert not issubclass(px.ParamCache, px.BaseParam)
    assert {name for name in vars(px.ParamCache) if not name.startswith("_")} == set()
    assert isinstance(Cache(), px.ParamCache)
    assert isinstance(Cache(), px.ParamDict)
    assert not isinstance(px.ParamDict(), px.ParamCache)


def test_a_param_dict_is_a_pytree_of_its_arrays() -> None:
    param = Cache({"u": VECTOR, "h": MATRIX})
    doubled = jax.tree.map(lambda leaf: 2 * leaf, param)
    assert type(doubled) is Cache
    np.testing.assert_array_equal(doubled["u"], 2 * np.asarray(VECTOR))
    assert param["u"] is VECTOR
    assert jax.tree.leaves(Cache()) == []
    assert structure(Cache()) != structure(Cache({}))
