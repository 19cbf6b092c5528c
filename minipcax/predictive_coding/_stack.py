"""`Stack`: layers of one form, each followed by its own value node, as one program for all of them.

In predictive coding, the update of a layer depends only on the states around it. So, given the states, no layer has to
wait for another: all are called at once, by a `vmap` over layers, and neither the program nor the time it takes to
compile grow with the number of layers. Only where a state follows from its prediction, as in forward initialisation,
are the layers called in order, by a `scan`. `_layers` has both.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import minipcax.predictive_coding._stack_refusals as refusals
from minipcax.core import RKG, Module, RandomKeyGenerator
from minipcax.core.trace import in_vmap
from minipcax.core.tree import is_param
from minipcax.functional import vmap
from minipcax.predictive_coding._energy import se_energy
from minipcax.predictive_coding._energy_module import EnergyModule
from minipcax.predictive_coding._layers import (
    at_once,
    each_layer,
    in_order,
    in_turn,
    layer_of,
    mark,
    stack,
    stacked_params,
)
from minipcax.predictive_coding._parameter import VodeParam
from minipcax.predictive_coding._ruleset import Rules, Tform
from minipcax.predictive_coding._vode import EnergyFn, Vode

Block = TypeVar("Block", bound=Module)


class Vodes(Vode[VodeParam]):
    """The value nodes of a `Stack`: a node whose values have an axis of layers. The axis of samples is before it."""

    def __init__(self, depth: int, energy_fn: EnergyFn | None, ruleset: Rules, tforms: Mapping[str, Tform]) -> None:
        super().__init__(energy_fn, ruleset, tforms)
        mark(self.h, depth)
        mark(self.cache, depth)

    def energy(self, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
        """Returns the energy of every layer: of shape (layers,) inside `vmap`, (batch, layers) outside."""
        self.cache.notes.check_predictions()
        self.cache.notes.predictions = 0
        energy: Array = self._each(lambda vode: vode.energy(rkg))
        return energy

    def energies(self) -> dict[str, Float[Array, "..."]]:
        """Returns the energy of each layer by its number, `[17]`."""
        return {f"[{number}]": energy for number, energy in enumerate(jnp.moveaxis(self.energy(), -1, 0))}

    def get(self, key: str, default: object = None, rkg: RandomKeyGenerator = RKG) -> Any:  # as for `Vode`
        """Like `Vode.get`; an output rule is applied layer by layer."""
        if self.ruleset.output_for(self.status, key) is None:
            return super().get(key, default, rkg)
        value = self._each(lambda vode: vode.get(key, rkg=rkg))
        return default if value is None else value

    def set(self, key: str, value: object, rkg: RandomKeyGenerator = RKG) -> Self:
        """Like `Vode.set`; transformations are applied layer by layer."""
        if not any(rule.tforms for rule in self.ruleset.inputs_for(self.status, key)):
            return super().set(key, value, rkg)
        self._each(lambda vode, value: (vode.set(key, value, rkg), None)[1], value)
        return self

    def one(self) -> Vode[VodeParam]:
        """Returns an ordinary node with the same parameters, while they hold the values of one layer."""
        vode = Vode[VodeParam]()
        vars(vode).update(vars(self))
        return vode

    def _each(self, fn: Callable[..., Any], *x: Any) -> Any:
        if not in_vmap():
            return vmap({"vodes": _axes_of_samples})(lambda *x, vodes: vodes._each(fn, *x))(*x, vodes=self)
        return each_layer(at_once, lambda *x, module: fn(module.one(), *x), self, *x)


def _axes_of_samples(tree: Any) -> Any:  # for parameters, in the form of a mask
    def axis(param: object) -> int | None:
        return 0 if isinstance(param, VodeParam | VodeParam.Cache) else None

    return jax.tree.map(axis, tree, is_leaf=is_param)


class Stack(EnergyModule, Generic[Block], static=("depth", "parallel")):
    """Layers of one form, each followed by its own value node. Called with x, it returns the state of the last:

        h_0 = x,  u_l = block_l(h_{l−1}),  and the energy of layer l is that of its node, E(h_l, u_l)

    It computes what a list of the same blocks and of nodes does, `for block, vode in zip(...): x = vode(block(x))`. But
    it is compiled once for all layers, and given the states, it computes all layers at once. The parameters of
    `stack.blocks` have a leading axis of layers; so has the state of `stack.vodes`, after that of samples. Where a
    shape or anything else changes from layer to layer, a model has layers and nodes of its own before, between and
    after stacks.

    Args:
        make: makes a block, a module that keeps the shape of its input. It is called once for each layer, so that
            random keys, and weights, are those of a list. A parameter that all blocks hold is shared by all layers.
        depth: the number of layers.
        energy_fn: that of every node, as for `Vode`.
        ruleset: that of every node, as for `Vode`.
        tforms: the transformations that the rules name.
        tied: whether `make` is called once, for one block that is used in every layer: its weights are shared.
        parallel: whether to compute all layers at once where none has to wait, or one at a time. On CPUs, convolutions
            are much slower at once, for XLA then runs those of all layers as one grouped convolution.

    Raises:
        TypeError: `make` does not make a module that can be called.
        ValueError: the depth is not a positive int; blocks differ in more than the values of their parameters; or, in a
            call, a block changes the shape.

    Example:
        >>> stack = Stack(lambda: Linear(4, 4), depth=3)
        >>> with step(stack, STATUS.INIT, clear_params=VodeParam.Cache):
        ...     h = stack(jnp.ones(4))
        >>> h.shape, len(stack), stack[2].nn.weight
        ((4,), 3, LayerParam([4,4], float32))
        >>> stack
        Stack(
          .blocks.nn.weight: LayerParam([3,4,4], float32)
          .blocks.nn.bias: LayerParam([3,4], float32)
          .vodes.h: VodeParam([3,4], float32)
          .vodes.cache: Cache(None)
        )
    """

    blocks: Block  # all of them in one, whose parameters have an axis of layers
    vodes: Vodes

    def __init__(
        self,
        make: Callable[[], Block],
        depth: int,
        energy_fn: EnergyFn | None = se_energy,
        ruleset: Rules = {},
        tforms: Mapping[str, Tform] = {},
        *,
        tied: bool = False,
        parallel: bool = True,
    ) -> None:
        super().__init__()
        refusals.check_make(make)
        refusals.check_depth(depth)
        self.depth, self.parallel = int(depth), parallel
        blocks = [make()] * depth if tied else [make() for _ in range(depth)]
        refusals.check_blocks(blocks, EnergyModule)
        self.blocks = stack(blocks)
        self.vodes = Vodes(depth, energy_fn, ruleset, tforms)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the state of the last layer, for one sample."""
        if self._states_follow():
            h: Array = each_layer(in_order, _call, self, x)
        else:
            before = self.vodes.h.get()
            refusals.check_states_of_layers(x, before)
            way = at_once if self.parallel else in_turn
            each_layer(way, _call, self, jnp.concatenate([x[None], before[:-1]]))
            refusals.check_states_kept(before, self.vodes.h.get())
            h = before[-1]
        self.vodes.cache.notes.predictions += 1
        return h

    def _states_follow(self) -> bool:
        """Whether, in the present status, a rule makes the states from the predictions."""
        rules, status = self.vodes.ruleset, self.vodes.status
        sets_h = any("h" in rule.others for rule in rules.inputs_for(status, "u"))
        return sets_h or rules.output_for(status, "h") is not None

    def nodes(self) -> dict[str, EnergyModule]:
        """Returns the nodes of all layers, which are one module, in the place of this one."""
        return {"": self.vodes}

    def energies(self) -> dict[str, Float[Array, "..."]]:
        return self.vodes.energies()

    def freeze(self, layers: Iterable[int]) -> None:
        """Freezes the weights of these layers, and of no others; `stack.blocks.frozen = True` freezes those of all."""
        frozen = refusals.checked_layers(layers, self.depth, stacked_params(self.blocks))
        for param in stacked_params(self.blocks):
            vars(param)["frozen_layers"] = frozen

    def __len__(self) -> int:
        return self.depth

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, number: int) -> Block:
        """Returns the block of one layer, for looking and for plots: a copy, which refuses all changes."""
        return layer_of(self.blocks, refusals.checked_number(number, self.depth))

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(self.depth))


def _call(x: Array, *, module: Stack[Any]) -> Array:
    u = module.blocks(x)
    refusals.check_keeps_form(x, u)
    h: Array = module.vodes.one()(u)
    return h
