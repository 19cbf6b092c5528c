"""`Stack`: identical layers, each followed by its own value node, compiled as one.

In predictive coding, the update of a layer depends only on the states around it. So, given the states, no layer has to
wait for another: all are called at once, by a `vmap` over layers, and neither the program nor the time it takes to
compile grows with the number of layers. Only where a state follows from its prediction, as in forward initialisation,
are the layers called in order, by a `scan`. `_layers` has both.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import minipcax.predictive_coding._stack_refusals as refusals
from minipcax.core import Module, Param, get
from minipcax.core.trace import in_vmap
from minipcax.core.tree import path_name, walk
from minipcax.predictive_coding._energy import se_energy
from minipcax.predictive_coding._energy_module import EnergyModule
from minipcax.predictive_coding._layers import (
    at_once,
    chained,
    each_layer,
    is_stacked,
    layers_of,
    one_by_one,
    read_only,
    stack,
    stacked_params,
)
from minipcax.predictive_coding._ruleset import Rules, Tform
from minipcax.predictive_coding._vode import EnergyFn
from minipcax.predictive_coding._vodes import Vodes

Block = TypeVar("Block", bound=Module)


class Stack(EnergyModule, Generic[Block], static=("parallel", "_depth", "_stacked")):
    """Identical layers, each followed by its own value node, compiled as one.

        h_0 = x,  u_l = block_l(h_{l−1}),  E = Σ_l E_l(h_l, u_l)

    Called with one sample x, it returns the state of the last layer, in the shape of x. It computes what a list of the
    same blocks and nodes does, `for block, vode in zip(...): x = vode(block(x))`, but it is compiled only once, and
    given the states, it computes all layers in parallel. Each parameter of `stack.blocks` has a leading axis of layers,
    (depth, ...), and the states `stack.vodes.h` of a batch have shape (batch, depth, *x.shape). Any other attribute of
    `stack.vodes`, such as a precision, is common to all layers. Layers that change the shape go before, between or
    after stacks.

    An optimiser sees one array for all layers. One that depends on the whole array or on its shape, such as lamb, muon
    or a mask by `ndim`, behaves differently than with a list. During inference, dropout draws from different keys.
    `ZIL` requires a list.

    On two CPU cores, with 128 layers, a step of `PC` takes half the time of a list at width 16 (batch 8). With jax 0.12
    it takes 1.1 times as long at width 64 and 0.9 times at width 256 (batch 32); with jax 0.10, whose XLA is slow at
    stacks of matrices, 1.4 and 3 times. `EPC` and `Backprop` take 1.1 to 1.6 times at these widths, and convolutions
    1.3 to 1.4 times with `parallel=False`, 3 to 5 times without. On a GPU (H200), with 128 layers of width 128 (batch
    128), a step of `PC` takes 0.11 of the time of a list with T = 8, and 0.08 with T = 32, among other steps in a loop.
    See `examples/benchmarks/README.md`.

    Args:
        make: a function without arguments that returns a block, a module from one sample to an array of the same shape
            and dtype. It is called once per layer, so the weights are those of a list for the same key. The values of
            the blocks are moved into the stack, which clears the blocks' own parameters. A parameter that all blocks
            hold is shared by all layers.
        depth: the number of layers, an int of at least 1.
        energy_fn: the energy function of every node, as for `Vode`.
        ruleset: the rules of every node, as for `Vode`.
        tforms: the transformations that the rules name, as for `Vode`.
        tied: whether all layers use one block, with shared weights; `make` is then called once.
        parallel: whether to compute all layers at once, given the states, or one at a time. On CPUs, convolutions are
            much slower at once, because XLA then runs those of all layers as one grouped convolution.

    Raises:
        TypeError: `make` does not return a module that can be called.
        ValueError: `depth` is not a positive int; blocks differ in more than the values of their parameters, or hold
            value nodes of their own; or, in a call, a block changes the shape or dtype, or a node has no state yet.

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
        self._depth, self.parallel = int(depth), parallel
        vodes = Vodes(self._depth, energy_fn, ruleset, tforms)
        blocks = [make()] * depth if tied else [make() for _ in range(depth)]
        refusals.check_blocks(blocks)
        self.blocks = stack(blocks, tied)
        self.vodes = vodes
        self._stacked = tuple(path_name(path) for path, node in walk(self) if is_stacked(node))

    def __call__(self, x: Float[Array | np.ndarray, "..."] | Param) -> Float[Array, "..."]:
        """Stores the prediction of every layer for one sample `x`, and returns the state of the last, in its shape."""
        x, asked = jnp.asarray(get(x)), set[str]()
        refusals.check_marks(self._stacked, self._depth, self)
        notes = self.vodes.cache.notes  # new ones, if the cache was cleared

        def call(x: Array, *, tracked: Stack[Any]) -> Array:
            u = tracked.blocks(x)
            refusals.check_output(x, u)
            vode = tracked.vodes.one()
            h: Array = vode(u)
            refusals.check_states(x, h)
            asked.update(vode.cache.notes.asked)
            return h

        if self._states_follow():
            h: Array = each_layer(chained, call, self, x)
        else:
            before = self.vodes.h.get()
            refusals.check_states(x, before, axes=1)
            way = at_once if self.parallel else one_by_one
            each_layer(way, call, self, jnp.concatenate([x[None], before[:-1]]))
            refusals.check_states_kept(before, self.vodes.h.get())
            h = before[-1]
        if not in_vmap():
            self.vodes.note_one_sample()
        notes.predictions += 1
        notes.asked |= asked
        return h

    def _states_follow(self) -> bool:
        """Whether, in the present status, a rule makes the states from the predictions."""
        rules, status = self.vodes.ruleset, self.vodes.status
        sets_h = any("h" in rule.others for rule in rules.inputs_for(status, "u"))
        return sets_h or rules.output_for(status, "h") is not None

    def nodes(self) -> dict[str, EnergyModule]:
        """Returns the one module that holds the nodes of all layers, under the path of this stack."""
        return {"": self.vodes}

    @property
    def depth(self) -> int:
        """The number of layers."""
        return self._depth

    def freeze_only(self, layers: Iterable[int]) -> None:
        """Freezes the weights of these layers, and unfreezes those of all others.

        An `Optim` does not update frozen layers, and has no moments for them when they are unfrozen. Weights that
        layers share are not frozen; `stack.blocks.frozen = True` freezes everything.

        Args:
            layers: the numbers of layers, from 0 to depth − 1; an empty list unfreezes all.

        Raises:
            TypeError: `layers` is not an iterable of ints.
            IndexError: there is no such layer.
            ValueError: the layers share all parameters.
        """
        params = stacked_params(self.blocks)
        frozen = refusals.checked_layers(layers, self.depth, params)
        for param in params:
            vars(param)["frozen_layers"] = frozen

    def to_list(self) -> list[Block]:
        """Returns the blocks as a list of ordinary modules, which share the parameters that all layers share.

        They are copies, so changing them does not change the stack.
        """
        return layers_of(self.blocks, range(self.depth))

    def __len__(self) -> int:
        return self.depth

    def __getitem__(self, number: int) -> Block:
        """Returns the block of one layer, for inspection and plots: a copy that cannot be changed."""
        return read_only(*layers_of(self.blocks, [refusals.checked_number(number, self.depth)]))

    def __setitem__(self, number: int, value: object) -> None:
        raise refusals.read_only(self)

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(self.depth))
