"""Modules as pytrees, their order, names and modes."""

import copy
import pickle
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves_with_path

import minipcax as px
import minipcax.functional as pxf
from minipcax.core.tree import is_param
from tests.dags import Block, Cache, Group, Weight, occurrences, outline, random_dag, structure, unique

MODE = px.Module.MODE
SEEDS = pytest.mark.parametrize("seed", range(200))
Pair = namedtuple("Pair", ["first", "second"])


class Affine(px.BaseModule):
    def __init__(self, value: float) -> None:
        self.weight = Weight(jnp.full((2, 3), value))
        self.bias = px.Param(jnp.zeros(2))


class Dense(px.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.nn = Affine(value)
        self.act = px.static(jnp.tanh)


T = TypeVar("T")


class Box(px.Module, Generic[T]):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = px.Param(jnp.array(scale))


class Stack(px.Module):
    def __init__(self, *layers: Dense) -> None:
        super().__init__()
        self.layers = list(layers)
        self.extra = {"cache": Cache(), "pair": (px.Param(jnp.ones(())), px.static("a"))}


class Careless(px.Module):
    """Does not call super().__init__()."""

    def __init__(self) -> None:
        self.inner = Dense(1.0)


class Sized(px.Module, static=("size", "names")):
    def __init__(self, size: int, names: list[str]) -> None:
        super().__init__()
        self.size = size
        self.names = names
        self.weight = Weight(jnp.zeros(size))


class SizedMore(Sized, static=("more",)):
    def __init__(self, size: int, more: Callable[[], None]) -> None:
        super().__init__(size, [])
        self.more = more


class Bag:
    """A tree node from elsewhere."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = list(items)


jax.tree_util.register_pytree_node(Bag, lambda bag: (bag.items, None), lambda _, items: Bag(items))


def flatten(module: px.BaseModule) -> tuple[list[Any], Any]:
    return jax.tree.flatten(module, is_leaf=is_param)


def child_names(module: px.BaseModule) -> list[str]:
    found, _ = tree_flatten_with_path(module, is_leaf=lambda node: node is not module)
    return [keystr(path) for path, _ in found]


def test_key_paths_read_from_input_to_output() -> None:
    model = Stack(Dense(1.0), Dense(2.0))
    paths = [keystr(path) for path, _ in tree_leaves_with_path(model, is_leaf=is_param)]
    assert paths == [
        ".layers[0].nn.weight",
        ".layers[0].nn.bias",
        ".layers[0].act",
        ".layers[1].nn.weight",
        ".layers[1].nn.bias",
        ".layers[1].act",
        ".extra['cache']",
        ".extra['pair'][0]",
        ".extra['pair'][1]",
    ]
    leaves = tree_leaves_with_path(model)
    assert [keystr(path) for path, _ in leaves] == [
        f"{path}.value" for path in paths if "act" not in path and "cache" not in path and path != ".extra['pair'][1]"
    ]
    assert leaves[0][1] is model.layers[0].nn.weight.get()


@SEEDS
def test_flattening_keeps_the_parameters(seed: int) -> None:
    model = random_dag(seed)
    params, treedef = flatten(model)
    found = [(keystr(path), node) for path, node in tree_leaves_with_path(model, is_leaf=is_param) if is_param(node)]
    assert [path for path, _ in found] == [path for path, _ in occurrences(model)]
    firsts = {id(param) for param in unique(model)}  # in the other places there is something that has no leaf
    assert [id(node) for _, node in found if id(node) in firsts] == [id(param) for param in unique(model)]
    assert all(id(node) in firsts or not jax.tree.leaves(node) for _, node in found)

    rebuilt = jax.tree.unflatten(treedef, params)
    assert rebuilt is not model
    assert outline(rebuilt) == outline(model)
    assert all(one is other for (_, one), (_, other) in zip(occurrences(rebuilt), occurrences(model), strict=True))
    assert structure(rebuilt) == structure(model)
    assert hash(structure(rebuilt)) == hash(structure(model))


def test_the_first_instance_of_a_class_fixes_the_order() -> None:
    class Model(px.Module):
        def __init__(self, names: str) -> None:
            super().__init__()
            for name in names:
                setattr(self, name, px.Param(1.0))

    Model("cab")
    assert child_names(Model("bca")) == [".c", ".a", ".b"]
    assert child_names(Model("ab")) == [".a", ".b"]
    assert child_names(Model("zba")) == [".a", ".b", ".z"]
    assert child_names(Model("yzc")) == [".c", ".z", ".y"]
    assert structure(Model("cab")) == structure(Model("bca"))
    assert structure(Model("cab")) != structure(Model("ab"))

    class Below(Model):
        pass

    assert child_names(Below("bca")) == [".b", ".c", ".a"]
    assert child_names(Model("bca")) == [".c", ".a", ".b"]


def test_assigning_again_or_deleting_keeps_the_order() -> None:
    model: Any = Group([px.Param(1.0), px.Param(2.0), px.Param(3.0)])
    model.a = px.Param(4.0)
    assert jax.tree.leaves(model) == [4.0, 2.0, 3.0]
    del model.b
    assert jax.tree.leaves(model) == [4.0, 3.0]
    model.b = px.Param(5.0)
    assert jax.tree.leaves(model) == [4.0, 5.0, 3.0]


def test_an_attribute_set_behind_the_back_is_a_child_too() -> None:
    class Model(px.BaseModule):
        pass

    model = Model()
    vars(model).update(b=px.Param(1.0), a=px.Param(2.0))
    assert child_names(model) == [".b", ".a"]
    assert jax.tree.leaves(model) == [1.0, 2.0]


def test_a_property_is_no_child() -> None:
    class Model(px.BaseModule):
        whole: px.Param

        @property
        def half(self) -> float:
            return float(self.whole) / 2

        @half.setter
        def half(self, value: float) -> None:
            self.whole = px.Param(2 * value)

        def __init__(self) -> None:
            self.half = 2.0

    model = Model()
    assert child_names(model) == [".whole"]
    assert model.half == 2.0


def test_static_attributes_are_structure() -> None:
    model = Sized(3, ["a"])
    assert child_names(model) == [".weight"]
    copied = jax.tree.map(lambda leaf: leaf + 1, model)
    assert (copied.size, copied.names) == (3, ["a"])
    assert copied.weight.get().tolist() == [1.0, 1.0, 1.0]

    def sized(size: Any, names: Any) -> Any:
        model = Sized(3, ["a"])
        model.size, model.names = size, names
        return structure(model)

    assert sized(3, ["a"]) == structure(model)
    assert hash(sized(3, ["a"])) == hash(structure(model))
    others = [sized(3, ["a"]), sized(4, ["a"]), sized(3.0, ["a"]), sized(3, ["b"]), sized(3, ("a",))]
    assert all(first != second for i, first in enumerate(others) for second in others[:i])

    below = SizedMore(2, print)
    assert child_names(below) == [".weight"]
    copied = jax.tree.map(lambda leaf: leaf, below)
    assert (copied.size, copied.names, copied.more) == (2, [], print)


def test_static_attributes_of_all_bases_are_structure() -> None:
    class Named(px.BaseModule, static=("name",)):
        name = "x"

    class Both(px.Module, Named, static=("size",)):
        size = "x"

    model = Both()
    model.train()
    model.name = model.size = "y"
    assert child_names(model) == []
    copied = jax.tree.map(lambda leaf: leaf, model)
    assert copied.is_train
    assert (copied.name, copied.size) == ("y", "y")


@pytest.mark.parametrize("module", [px.Module(), px.BaseModule(), px.RandomKeyGenerator(0), px.RKG], ids=repr)
def test_library_classes_have_parameters_and_modules_only(module: px.BaseModule) -> None:
    module = copy.copy(module)
    if isinstance(module, px.Module):
        module.train()
    children = jax.tree.leaves(module, is_leaf=lambda node: node is not module)
    assert all(isinstance(child, (px.BaseParam, px.BaseModule)) for child in children)


def test_repr_lists_each_dynamic_parameter_by_its_path() -> None:
    model: Any = Stack(Dense(1.0))
    model.tied = model.layers[0].nn.weight
    assert repr(model) == (
        "Stack(\n"
        "  .layers[0].nn.weight: Weight([2,3], float32)\n"
        "  .layers[0].nn.bias: Param([2], float32)\n"
        "  .extra['cache']: Cache(None)\n"
        "  .extra['pair'][0]: Param([], float32)\n"
        "  .tied → .layers[0].nn.weight\n"
        ")"
    )
    assert repr(px.Module()) == "Module()"


@pytest.mark.parametrize("seed", range(50))
def test_repr_of_random_models(seed: int) -> None:
    model = random_dag(seed)
    first = {id(param): path for path, param in reversed(list(occurrences(model)))}
    lines = [
        f"  {path}: {param!r}\n" if path == first[id(param)] else f"  {path} → {first[id(param)]}\n"
        for path, param in occurrences(model)
        if isinstance(param, px.DynamicParam)
    ]
    assert repr(model) == (f"Block(\n{''.join(lines)})" if lines else "Block()")
    # Placeholders are no parameters of the model.
    lines = [f"  {first[id(param)]}: {param!r}\n" for param in unique(model, px.DynamicParam)]
    assert repr(px.tree_ref(model)) == (f"Block(\n{''.join(lines)})" if lines else "Block()")


def test_submodules_are_the_nearest_of_a_class() -> None:
    deep = Dense(1.0)
    covered = Block([deep])
    layers = [Dense(2.0), Dense(3.0), Dense(4.0), Dense(5.0), Dense(6.0)]
    containers: list[Any] = [
        [layers[0]],
        {"b": (layers[2], 1.0), "a": Pair(layers[1], None)},
        OrderedDict(z=Group([Bag([layers[3]])])),
        layers[4],
    ]
    model = Group([*containers, covered])

    def ids(modules: Iterable[object]) -> list[int]:
        return [id(module) for module in modules]

    group = containers[2]["z"]
    assert isinstance(model.submodules(Dense), Iterator)
    assert ids(model.submodules(Dense)) == ids([*layers, deep])
    assert ids(model.submodules(cls=Block)) == ids([covered])
    assert ids(model.submodules(px.Module)) == ids([*layers, covered])
    assert ids(model.submodules(Affine)) == ids(layer.nn for layer in [*layers, deep])
    assert ids(model.submodules(Stack)) == []
    assert ids(model.submodules()) == ids([*layers[:3], group, layers[4], covered])
    assert ids(model.submodules(None)) == ids(model.submodules())  # type: ignore[call-overload]  # as by default
    assert ids(layers[0].submodules()) == ids([layers[0].nn])
    assert ids(layers[0].submodules(Dense)) == []


def test_submodules_accepts_a_module_reached_twice() -> None:
    layer = Dense(1.0)
    assert [id(module) for module in Group([layer, [layer]]).submodules()] == [id(layer)]


def test_mode_starts_as_neither() -> None:
    model = Stack(Dense(1.0))
    assert model.mode() is None
    assert (model.is_train, model.is_eval) == (False, False)
    assert set(MODE) == {MODE.TRAIN, MODE.EVAL}


def test_mode_is_recursive() -> None:
    inner = [Dense(1.0), Dense(2.0), Dense(3.0), Dense(4.0)]
    modules: list[px.Module] = [
        *inner,
        Stack(inner[0]),
        Block([Group([{"a": (inner[1],)}]), Bag([inner[2]]), inner[3]]),
    ]
    model = Block([*modules[4:]])
    changes: list[tuple[Callable[[], object], px.Module.MODE]] = [
        (model.train, MODE.TRAIN),
        (model.eval, MODE.EVAL),
        (lambda: model.mode(MODE.TRAIN), MODE.TRAIN),
        (lambda: model.mode(value=MODE.EVAL), MODE.EVAL),
    ]
    for change, mode in changes:
        change()
        for module in [model, *modules]:
            assert module.mode() is mode
            assert module.mode(None) is mode
            assert (module.is_train, module.is_eval) == (mode is MODE.TRAIN, mode is MODE.EVAL)


def test_mode_of_a_part_leaves_the_rest() -> None:
    model = Stack(Dense(1.0), Dense(2.0))
    model.eval()
    model.layers[0].train()
    assert (model.mode(), model.layers[0].mode(), model.layers[1].mode()) == (MODE.EVAL, MODE.TRAIN, MODE.EVAL)
    model.mode(None)
    assert model.layers[0].mode() is MODE.TRAIN


def test_mode_is_structure_and_survives_copies() -> None:
    model = Stack(Dense(1.0))
    structures = [structure(model)]
    for mode in (MODE.TRAIN, MODE.EVAL):
        model.mode(mode)
        structures.append(structure(model))
        for copied in (jax.tree.map(lambda leaf: leaf, model), copy.deepcopy(model), px.tree_unref(px.tree_ref(model))):
            assert copied.mode() is copied.layers[0].mode() is mode
    assert len({*structures}) == 3
    assert len(jax.tree.leaves(model)) == 3


@pytest.mark.parametrize("value", ["train", True, 1])
def test_what_is_no_mode_is_refused(value: Any) -> None:
    model = Stack(Dense(1.0))
    with pytest.raises(ValueError, match=r"MODE\.TRAIN or .*MODE\.EVAL.*found"):
        model.mode(value)
    assert model.mode() is model.layers[0].mode() is None


def test_a_class_that_does_not_call_super() -> None:
    model = Careless()
    assert model.mode() is None
    assert (model.is_train, model.is_eval) == (False, False)
    assert child_names(model) == [".inner"]
    assert outline(jax.tree.map(lambda leaf: leaf, model)) == outline(model)
    assert [type(module) for module in model.submodules()] == [Dense]
    model.train()
    assert model.is_train
    assert model.inner.is_train
    assert not Careless().is_train


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("seed", range(30))
def test_deep_copies_keep_sharing(copied: Callable[[Any], Any], seed: int) -> None:
    model = random_dag(seed)
    found = copied(model)
    assert outline(found) == outline(model)
    assert structure(px.tree_ref(found)) == structure(px.tree_ref(model))
    assert not {id(param) for param in unique(found)} & {id(param) for param in unique(model)}
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(model), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("seed", range(30))
def test_a_copy_holds_the_same_parameters(seed: int) -> None:
    model = random_dag(seed)
    found: Any = copy.copy(model)
    assert found is not model
    assert outline(found) == outline(model)
    assert [id(param) for param in unique(found)] == [id(param) for param in unique(model)]
    found.a = px.Param(1.0)
    assert vars(model)["a"] is not found.a


def test_the_type_that_a_generic_module_was_made_with_is_no_child() -> None:
    box = Box[int](2.0)
    assert jax.tree.map(jnp.add, box, Box(1.0)).scale.get() == 3.0

    @pxf.jit
    def double(*, box: Box[int]) -> None:
        box.scale.set(2 * box.scale)

    double(box=box)
    assert float(box.scale) == 4.0


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (px.Param(jnp.ones(2)), r"a Param in"),
        ([Weight(jnp.ones(2))], r"a list that holds a parameter at \[0\] in"),
        (Block([Weight(jnp.ones(2))]), r"a Block that holds a parameter at \..* in"),
    ],
)
def test_a_parameter_in_the_body_of_a_class_is_refused(value: Any, found: str) -> None:
    """Transforms find what an object holds; what its class holds they would compile as it is."""
    words = rf"Layer\.w expected parameters to be made in __init__, found {found} the body .*: write self\.w = "
    with pytest.raises(TypeError, match=words):
        type("Layer", (px.Module,), {"w": value})
    layer = type("Layer", (px.Module,), {"w": px.static(3), "size": 2, "call": staticmethod(lambda x: x)})
    assert layer.size == 2  # type: ignore[attr-defined]  # made in this test
