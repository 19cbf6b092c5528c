"""A stack of layers against a list of the same blocks, with a node after each."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.oracles import close

WIDTH, DEPTH = 4, 3
X = jnp.linspace(-1.0, 1.0, WIDTH)
STATES = jnp.linspace(-2.0, 2.0, DEPTH * WIDTH).reshape(DEPTH, WIDTH)


def test_it_is_a_list_of_blocks_and_nodes() -> None:
    px.RKG.seed(1)
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), depth=DEPTH)
    px.RKG.seed(1)
    blocks = [pxnn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)]
    vodes: list[pxc.Vode] = [pxc.Vode() for _ in range(DEPTH)]

    with pxu.step([stack, vodes], pxc.STATUS.INIT):
        h = X
        for block, vode in zip(blocks, vodes, strict=True):
            h = vode(block(h))
        close(stack(X), h)
    close(stack.vodes.h.get(), jnp.stack([vode.h.get() for vode in vodes]))

    # With states of their own, the layers do not wait for each other: each predicts from the state before it.
    stack.vodes.h.set(STATES)
    stack.clear_params(pxc.VodeParam.Cache)
    close(stack(X), STATES[-1])
    predictions = [blocks[0](X), blocks[1](STATES[0]), blocks[2](STATES[1])]
    close(stack.vodes.get("u"), jnp.stack(predictions))


def test_it_shows_its_layers() -> None:
    px.RKG.seed(1)
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), depth=DEPTH)
    px.RKG.seed(1)
    blocks = [pxnn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)]
    assert len(stack) == DEPTH
    assert [*stack.submodules(pxc.Vode)] == [stack.vodes]
    for one, block in zip(stack, blocks, strict=True):
        assert isinstance(one, pxnn.Linear)
        close(one(X), block(X))
    close(stack[-1].nn.weight.get(), blocks[-1].nn.weight.get())
    assert ".blocks.nn.weight: LayerParam([3,4,4], float32)" in repr(stack)


def energies_by_hand(stack: pxc.Stack[Any], states: Array) -> list[Array]:
    before = [X, *states[:-1]]
    return [0.5 * jnp.square(h - block(x)).sum() for x, block, h in zip(before, stack, states, strict=True)]


def test_its_energies_are_those_of_its_layers() -> None:
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), depth=DEPTH)

    @pxf.vmap({"stack": pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))})
    def energies(x: Array, *, stack: pxc.Stack[Any]) -> Array:
        stack(x)
        return stack.vodes.energy()

    states = jnp.stack([STATES, 2 * STATES])
    stack.vodes.h.set(states)
    expected = jnp.stack([jnp.stack(energies_by_hand(stack, each)) for each in states])
    close(energies(jnp.stack([X, X]), stack=stack), expected, 1e-5)
    # Outside of `vmap`, there is an axis of samples.
    close(stack.vodes.energy(), expected, 1e-5)
    close(stack.energy(), expected.sum(), 1e-5)
    close(stack.energies(), {f"[{number}]": each for number, each in enumerate(expected.T)}, 1e-5)


def double(vode: object, key: str, value: Array, rkg: object) -> Array:
    return 2 * value


@pytest.mark.thorough
def test_one_sample_without_vmap_and_plain_jax() -> None:
    """With as many layers as elements, whose axes only the call can tell apart."""
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), depth=WIDTH)
    states = jnp.linspace(-2.0, 2.0, WIDTH * WIDTH).reshape(WIDTH, WIDTH)

    def energies(stack: pxc.Stack[Any], states: Array) -> Array:
        stack.vodes.h.set(states)
        stack(X)
        return jnp.stack([*stack.energies().values()])

    expected = jnp.stack(energies_by_hand(stack, states))
    close(energies(copy.deepcopy(stack), states), expected, 1e-5)
    both = jnp.stack([states, 2 * states])
    found = jax.jit(jax.vmap(energies, (None, 0)))(stack, both)
    close(found, jnp.stack([expected, jnp.stack(energies_by_hand(stack, 2 * states))]), 1e-5)


def test_an_energy_may_draw_from_a_generator_of_its_own() -> None:
    def noise(vode: pxc.Vode[Any], *, rkg: px.RandomKeyGenerator) -> Array:
        return jax.random.normal(rkg(), vode.h.shape)

    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, noise)
    stack.vodes.h.set(STATES)
    stack(np.asarray(X))
    rkg = px.RandomKeyGenerator(3)
    assert len(np.unique(stack.vodes.energy(rkg))) == DEPTH
    assert not (rkg.key == px.RandomKeyGenerator(3).key).all()


def test_layers_in_turn_may_change_what_they_share() -> None:
    stack = pxc.Stack(Breaking, DEPTH, tied=True, parallel=False)
    stack.vodes.h.set(STATES)
    stack(X)
    assert stack.blocks.calls.item() == DEPTH


def test_a_list_of_its_blocks_is_ones_own() -> None:
    stack = pxc.Stack(lambda: Holding(layers=[pxnn.Linear(WIDTH, WIDTH)], f=px.static(jnp.tanh)), DEPTH)
    own = stack.to_list()[1]
    assert type(own) is Holding
    assert type(own.layers) is list
    own.f.set(jnp.sin)
    assert stack.blocks.f.get() is jnp.tanh
    own.layers[0].nn.weight.set(jnp.zeros((WIDTH, WIDTH)))
    assert stack[1].layers[0].nn.weight.get().all()


def test_an_energy_that_draws_is_computed_once() -> None:
    def noise(vode: pxc.Vode[Any], *, rkg: px.RandomKeyGenerator) -> Array:
        return jax.random.normal(rkg(), vode.h.shape)

    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, noise)
    stack.vodes.h.set(STATES)
    stack(X)
    close(stack.energy(), stack.energy(), 0)
    close(sum(stack.energies().values()), stack.energy())


def test_a_cleared_cache_begins_a_new_pass() -> None:
    stack = with_states(linears())
    for _ in range(2):
        stack(X)
        stack.clear_params(pxc.VodeParam.Cache)
    stack(X)
    close(stack.vodes.energy(), jnp.stack(energies_by_hand(stack, STATES)), 1e-5)


def test_a_target_that_a_transformation_sets_is_kept() -> None:
    rules: dict[str | None, tuple[str, ...]] = {pxc.STATUS.INIT: ("h <- h:double", "h, u <- u")}
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, ruleset=rules, tforms={"double": double})
    stack.vodes.h.frozen = True
    with pxu.step(stack, pxc.STATUS.INIT):
        stack.vodes.h.set(STATES[None])  # of one sample, in a batch
        stack.vodes.set("h", STATES[None])
        stack.vodes.h.set(stack.vodes.h.get()[0])
        close(stack(X), 2 * STATES[-1])
    close(stack.vodes.h.get(), 2 * STATES)


def test_a_stack_of_one_layer() -> None:
    stack = pxc.Stack(Breaking, 1)
    stack.vodes.h.set(STATES[:1])
    close(stack(X), STATES[0])
    assert stack.blocks.calls.tolist() == [1]
    stack.freeze_only([0])
    tied = pxc.Stack(Breaking, 1, tied=True, parallel=False)
    tied.vodes.h.set(STATES[:1])
    tied(X)
    assert tied.blocks.calls.shape == ()


def test_a_rule_that_makes_states_from_predictions_calls_layers_in_order() -> None:
    rules: dict[str | None, tuple[str, ...]] = {pxc.STATUS.ALL: ("u <- u", "h <- u:double")}
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, ruleset=rules, tforms={"double": double})
    stack.vodes.h.set(STATES)
    h = X
    for block in stack:
        h = 2 * block(h)
    close(stack(X), h)


def test_a_rule_for_what_nodes_return_is_what_the_next_layer_sees() -> None:
    rules: dict[str | None, tuple[str, ...]] = {None: ("h -> h:double",)}
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, ruleset=rules, tforms={"double": double})
    stack.vodes.h.set(STATES)
    close(stack(X), 2 * STATES[-1])
    predictions = [block(x) for block, x in zip(stack, [X, *2 * STATES], strict=False)]
    close(stack.vodes.get("u"), jnp.stack(predictions))


def test_an_output_rule_and_an_input_rule_are_applied_layer_by_layer() -> None:
    def centred(vode: object, key: str, value: Array, rkg: object) -> Array:
        assert value.shape == (WIDTH,)
        return value - value.mean()

    rules: dict[str | None, tuple[str, ...]] = {pxc.STATUS.ALL: ("e -> h:centred", "g <- g:centred")}
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, ruleset=rules, tforms={"centred": centred})
    stack.vodes.set("h", STATES[None])
    stack.vodes.set("g", STATES[None])
    expected = STATES - STATES.mean(axis=1, keepdims=True)
    close(stack.vodes.get("e"), expected[None])
    close(stack.vodes.get("g"), expected[None])


def test_an_energy_of_ones_own_sees_one_layer() -> None:
    def absolute(vode: pxc.Vode[Any]) -> Array:
        assert vode.h.shape == (WIDTH,)
        return jnp.abs(vode.h - vode.get("u"))

    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, absolute)
    stack.vodes.h.set(STATES[None])
    stack.vodes.set("u", jnp.zeros_like(STATES)[None])
    close(stack.vodes.energy(), jnp.abs(STATES).sum(axis=1)[None])


class Scaled(px.Module):
    """A block with a weight of its own, and one that it shares."""

    def __init__(self, scale: pxnn.LayerParam) -> None:
        super().__init__()
        self.layer, self.scale = pxnn.Linear(WIDTH, WIDTH), scale

    def __call__(self, x: Array) -> Array:
        return self.scale * self.layer(x)


def test_a_list_of_its_blocks_shares_what_they_share() -> None:
    scale = pxnn.LayerParam(jnp.array(0.5))
    first, second = pxc.Stack(lambda: Scaled(scale), 2).to_list()
    assert first.scale is second.scale is not scale
    assert first.layer.nn.weight is not second.layer.nn.weight
    one, other = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), 2, tied=True).to_list()
    assert one.nn.weight is other.nn.weight


def test_a_parameter_of_all_blocks_stays_one_and_its_gradient_is_the_sum() -> None:
    scale = pxnn.LayerParam(jnp.array(0.5))
    stack = pxc.Stack(lambda: Scaled(scale), DEPTH)
    assert stack.blocks.scale is scale
    stack.vodes.h.set(STATES)

    def by_hand(scale: Array) -> Array:
        before = [X, *STATES[:-1]]
        predictions = [scale * block.layer(x) for block, x in zip(stack, before, strict=True)]
        return 0.5 * jnp.square(STATES - jnp.stack(predictions)).sum()

    def one_sample(*, stack: pxc.Stack[Any]) -> Array:
        stack(X)
        return 0.5 * jnp.square(stack.vodes.h - stack.vodes.get("u")).sum()

    found = pxf.grad({"stack": pxu.M(pxnn.LayerParam)})(one_sample)(stack=stack)["stack"]
    close(found.blocks.scale.get(), jax.grad(by_hand)(scale.get()), 1e-5)


def test_tied_layers_use_one_block() -> None:
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH, tied=True)
    assert stack.blocks.nn.weight.shape == (WIDTH, WIDTH)
    with pxu.step(stack, pxc.STATUS.INIT):
        close(stack(X), stack[0](stack[1](stack[2](X))))


class Noisy(px.Module):
    def __call__(self, x: Array) -> Array:
        return jax.random.normal(px.RKG(), x.shape, x.dtype)


def test_every_layer_draws_its_own_keys() -> None:
    stack = pxc.Stack(Noisy, DEPTH)
    with pxu.step(stack, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        px.RKG.seed(2)
        stack(X)
    px.RKG.seed(2)
    close(stack.vodes.h.get(), jnp.stack([jax.random.normal(px.RKG(), X.shape) for _ in range(DEPTH)]))
    stack(X)
    assert len(np.unique(stack.vodes.get("u"))) == DEPTH * WIDTH


class Breaking(px.Module):
    """A block that counts its calls, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = pxnn.LayerState(jnp.array(0))
        self.weight = pxnn.LayerParam(jnp.ones(WIDTH))
        self.fails = px.static(False)

    def __call__(self, x: Array) -> Array:
        self.calls += 1
        if self.fails.get():
            raise RuntimeError("interrupted")
        return self.weight * x


@pytest.mark.parametrize("status", [None, pxc.STATUS.INIT])
def test_what_a_block_changes_is_kept_unless_it_fails(status: str | None) -> None:
    stack = pxc.Stack(Breaking, DEPTH)
    stack.vodes.h.set(STATES)
    with pxu.step(stack, status, clear_params=pxc.VodeParam.Cache):
        stack(X)
    assert stack.blocks.calls.tolist() == [1, 1, 1]
    before = [np.array(param.get()) for param in (stack.blocks.calls, stack.blocks.weight, stack.vodes.h)]
    stack.blocks.fails.set(True)
    with pxu.step(stack, status), pytest.raises(RuntimeError, match="interrupted"):
        stack(X)
    close([np.array(param.get()) for param in (stack.blocks.calls, stack.blocks.weight, stack.vodes.h)], before)


def test_copies_and_plain_jax() -> None:
    stack = pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH)
    stack.vodes.h.set(STATES)
    for twin in (copy.deepcopy(stack), pxnn.shared(stack), jax.tree.map(lambda x: x, stack)):
        twin(X)
        close(twin[1](X), stack[1](X))
    doubled = jax.jit(lambda stack: jax.tree.map(lambda x: 2 * x, stack))(stack)
    close(doubled[1](X), 2 * stack[1](X), 1e-5)


def alternating(*blocks: px.Module) -> Callable[[], Any]:
    each: Iterator[px.Module] = iter(blocks * DEPTH)
    return lambda: next(each)


class Holding(px.Module):
    """A block that holds anything."""

    layers: list[pxnn.Linear]
    d: px.ParamDict
    f: px.StaticParam[Any]

    def __init__(self, **held: Any) -> None:
        super().__init__()
        for name, value in held.items():
            setattr(self, name, value)

    def __call__(self, x: Array) -> Array:
        return x


def called(stack: pxc.Stack[Any], x: Array = X) -> pxc.Stack[Any]:
    stack(x)
    return stack


def linears() -> pxc.Stack[pxnn.Linear]:
    return pxc.Stack(lambda: pxnn.Linear(WIDTH, WIDTH), DEPTH)


def with_states(stack: pxc.Stack[Any], states: Array = STATES) -> pxc.Stack[Any]:
    stack.vodes.h.set(states)
    return stack


def scales(depth: int) -> pxc.Stack[Scaled]:
    each = iter(range(depth))
    return pxc.Stack(lambda: Scaled(pxnn.LayerParam(jnp.array(float(next(each))))), depth)


def replaced(depth: int | None = None) -> pxc.Stack[Scaled]:
    stack = with_states(scales(DEPTH))
    stack.blocks.scale = scales(depth).blocks.scale if depth else pxnn.LayerParam(jnp.arange(3.0))
    return stack


def targeted(target: Array) -> pxc.Stack[Any]:
    stack = linears()
    stack.vodes.h.frozen = True
    with pxu.step(stack, pxc.STATUS.INIT):
        stack.vodes.set("h", target)
        stack(X)
    return stack


def emptied() -> pxnn.Linear:
    blocks = [pxnn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)]
    pxc.Stack(iter(blocks).__next__, DEPTH)
    return blocks[0]


P, Q = pxnn.LayerParam(1.0), pxnn.LayerParam(2.0)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no layers": (lambda: pxc.Stack(Noisy, 0), ValueError, "depth to be a positive int, the number of layers, found 0"),
    "a depth that is not a number": (
        lambda: pxc.Stack(Noisy, True),
        ValueError,
        "a positive int, the number of layers, found True",
    ),
    "a block instead of a function that makes it": (
        lambda: pxc.Stack(Noisy(), 2),  # type: ignore[arg-type]
        TypeError,
        r"expected a function that makes a block, .*Stack\(lambda: Linear\(64, 64\), depth=8\)",
    ),
    "a function": (
        lambda: pxc.Stack(lambda: jnp.tanh, 2),
        TypeError,
        "found one that makes",
    ),
    "a node in a block": (
        lambda: pxc.Stack(lambda: Holding(vode=pxc.Vode()), 2),
        ValueError,
        "puts a value node after each block, found one in the block, at .vode: all layers of a Stack are one program",
    ),
    "other sizes": (
        lambda: pxc.Stack(alternating(Holding(p=px.Param(jnp.ones(2))), Holding(p=px.Param(jnp.ones(3)))), DEPTH),
        ValueError,
        r"between blocks 0 and 1 at .p, Param\(\[2\], float32\) and Param\(\[3\], float32\)",
    ),
    "another static": (
        lambda: pxc.Stack(alternating(Holding(p=px.static(1)), Holding(p=px.static(2))), DEPTH),
        ValueError,
        "between blocks 0 and 1 at .p, StaticParam",
    ),
    "another attribute": (
        lambda: pxc.Stack(alternating(Holding(d=pxnn.Dropout(0.1)), Holding(d=pxnn.Dropout(0.2))), DEPTH),
        ValueError,
        "between blocks 0 and 1 at .d, a Dropout with p=0.1, inference=False and a Dropout with p=0.2, inference=False",
    ),
    "another array": (
        lambda: pxc.Stack(alternating(Holding(p=jnp.zeros(2)), Holding(p=jnp.ones(2))), DEPTH),
        ValueError,
        "between blocks 0 and 1 at .p, Array",
    ),
    "a generator for each block": (
        lambda: pxc.Stack(alternating(*(Holding(rkg=px.RandomKeyGenerator(seed)) for seed in range(3))), DEPTH),
        ValueError,
        "expected blocks that draw from one generator, found one of its own in .rkg.key",
    ),
    "a parameter that some blocks share": (
        lambda: pxc.Stack(alternating(Holding(p=P), Holding(p=Q)), DEPTH),
        ValueError,
        "blocks that all share .p, or that each have their own, found 2 parameters in 3 blocks",
    ),
    "a block that changes the shape": (
        lambda: called(with_states(pxc.Stack(lambda: pxnn.Linear(WIDTH, 2), DEPTH))),
        ValueError,
        r"a block that keeps the shape and dtype of its input, found .* float32\[4\] and an output of float32\[2\]",
    ),
    "a block that changes the dtype": (
        lambda: called(with_states(pxc.Stack(lambda: Holding(), DEPTH)), jnp.ones(WIDTH, jnp.float16)),
        ValueError,
        r"an input of the form of its states, float32\[4\], found float16\[4\]",
    ),
    "no states": (lambda: called(linears()), ValueError, "have no states yet: call it under step"),
    "states of fewer layers": (
        lambda: called(with_states(linears(), STATES[:2])),
        ValueError,
        r".vodes.h of a Stack expected a value with a leading axis of 3 layers, found shape \(2, 4\)",
    ),
    "a layer that is not there": (lambda: linears()[3], IndexError, "a Stack of 3 layers has no layer 3"),
    "a change of a layer": (
        lambda: linears()[1].nn.weight.set(0),
        AttributeError,
        r"which is a copy for looking, .*: change the parameters of stack.blocks, .*stack.freeze_only\(\[i\]\)",
    ),
    "a frozen layer": (lambda: setattr(linears()[1], "frozen", True), AttributeError, "cannot change a Linear that"),
    "a layer of another weight": (
        lambda: setattr(linears()[1].nn, "weight", P),
        AttributeError,
        "cannot change a Weights that",
    ),
    "an item of a layer": (
        lambda: pxc.Stack(lambda: Holding(d=px.ParamDict({"a": X})), DEPTH)[0].d.__setitem__("a", X),
        AttributeError,
        "cannot change a ParamDict that",
    ),
    "another layer": (
        lambda: linears().__setitem__(0, pxnn.Linear(WIDTH, WIDTH)),
        AttributeError,
        "cannot change a Stack",
    ),
    "several layers": (lambda: linears()[0:2], TypeError, r"the number of one layer, found slice\(0, 2"),  # type: ignore[index]
    "freezing one layer by its number": (
        lambda: linears().freeze_only(0),  # type: ignore[arg-type]
        TypeError,
        r"freeze_only expected the numbers of layers, such as \[0\] or range\(4\), found 0",
    ),
    "another depth": (lambda: setattr(linears(), "depth", 5), AttributeError, "depth"),
    "neighbours that share": (
        lambda: pxc.Stack(alternating(Holding(p=P, q=Q), Holding(p=Q, q=P), Holding(p=P, q=Q)), DEPTH),
        ValueError,
        "share a parameter in the same place, found one that is .q of one block and .p of another",
    ),
    "a parameter that was replaced": (
        lambda: called(replaced()),
        ValueError,
        r".blocks.scale of a Stack was replaced by a parameter without its axis of 3 layers: .* with .set",
    ),
    "a parameter of a deeper stack": (
        lambda: called(replaced(DEPTH + 1)),
        ValueError,
        r".blocks.scale of a Stack .* assign the parameter of another Stack of 3 layers",
    ),
    "energies without states": (lambda: linears().vodes.energy(), ValueError, "needs its h, which is not set"),
    "deleting a part of a layer": (lambda: delattr(linears()[0], "nn"), AttributeError, "cannot change a Linear"),
    "the function of a layer": (
        lambda: pxc.Stack(lambda: Holding(f=px.static(jnp.tanh)), DEPTH)[0].f.set(jnp.sin),
        AttributeError,
        "cannot change a StaticParam",
    ),
    "a shared parameter that a layer changes": (
        lambda: called(with_states(pxc.Stack(Breaking, DEPTH, tied=True))),
        ValueError,
        r".blocks.calls of a Stack is shared by its layers, .* Stack\(..., parallel=False\)",
    ),
    "a target without an axis of layers": (
        lambda: targeted(jnp.zeros(WIDTH)),
        ValueError,
        r".vodes.h of a Stack expected a value with a leading axis of 3 layers, found shape \(4,\)",
    ),
    "the layer that was stacked": (lambda: emptied()(X), AttributeError, "this LayerParam is cleared"),
    "freezing a tied layer": (
        lambda: pxc.Stack(lambda: pxnn.Linear(2, 2), 2, tied=True).freeze_only([0]),
        ValueError,
        "have all parameters in common",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    mistake, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        mistake()


def test_two_calls_in_a_pass_are_refused() -> None:
    stack = with_states(linears())
    stack(X)
    stack(X)
    with pytest.raises(ValueError, match="2 predictions in one pass"):
        stack.vodes.energy()


def test_a_transformation_that_sets_states_in_secret_is_refused() -> None:
    def secret(vode: pxc.Vode[Any], key: str, value: Array, rkg: object) -> Array:
        vode.h.set(value)
        return value

    stack = pxc.Stack(Noisy, DEPTH, ruleset={None: ("u <- u:secret",)}, tforms={"secret": secret})
    with pytest.raises(ValueError, match="found a transformation that sets h without such a rule"):
        called(with_states(stack))
