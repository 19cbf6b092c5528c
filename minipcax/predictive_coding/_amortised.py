"""Amortised inference: a network that guesses where inference will take the state of a node."""

from collections.abc import Callable
from typing import Any

from jax.lax import stop_gradient
from jaxtyping import Array, Float

from minipcax.core.refusals import kind_of
from minipcax.predictive_coding._energy_module import STATUS, EnergyModule
from minipcax.predictive_coding._refusals import check_started_once
from minipcax.predictive_coding._vode import Vode


class Amortised(EnergyModule):
    """An inference network g that initialises the state h of a node and learns to predict where inference takes it.

        h = g(x) in status `STATUS.INIT`;  ΔW ∝ −∂/∂W ½‖stop_gradient(h) − g(stop_gradient(x))‖²

    Apart from the start, the guess has no influence on inference: its energy has the gradient above for the weights of
    g, none for the states, and the value zero. So the reported energies, tolerances and line searches are those of the
    model without it. `Backprop`, which has no inference, trains g like all other weights, through the initial state.

    Args:
        node: the node, which must not initialise itself: `Vode(ruleset={STATUS.INIT: ("u <- u",)})`.
        network: g, a module from one sample's x to an array of the shape of h. To initialise several nodes by one deep
            network, give each node some of its layers.

    Raises:
        TypeError: `node` is not a `Vode`, or `network` cannot be called.
        ValueError: the node initialises itself with its prediction.

    Example:
        A latent state is guessed from the image that it predicts:

        >>> class Hybrid(EnergyModule):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.layer = Linear(2, 4)
        ...         self.latent, self.image = Vode(ruleset={STATUS.INIT: ("u <- u",)}), Vode()
        ...         self.guess = Amortised(self.latent, Linear(4, 2))
        ...         self.image.h.frozen = True
        ...
        ...     def __call__(self, x: None, image: Array | None = None) -> Array:
        ...         if image is not None:
        ...             self.image.set("h", image)
        ...         latent = self.guess(self.image.get("h"))
        ...         self.latent(jnp.zeros(2))  # the prior
        ...         return self.image(self.layer(latent), output="u")
        >>> model = Hybrid()
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> PC(steps=3)(None, jnp.ones((5, 4)), model=model, nodes=nodes, weights=weights).predictions.shape
        (5, 4)

    Reference:
        Tscshantz, Millidge, Seth and Buckley, Hybrid predictive coding: Inferring, fast and slow, PLOS Computational
        Biology 19 (2023).
    """

    def __init__(
        self,
        node: Vode[Any],  # its state may be of any class
        network: Callable[[Array], Array],
    ) -> None:
        super().__init__()
        if not isinstance(node, Vode) or not callable(network):
            raise TypeError(f"Amortised expected a Vode and a network, found {kind_of(node)} and {kind_of(network)}")
        check_started_once(node.ruleset.inputs_for(STATUS.INIT, "u"))
        self.network = network
        self.guess = Vode[Any](_energy_of_guess)
        self.guess.h = node.h  # one state, of which the node's own prediction and the guess are two

    def __call__(self, x: Array) -> Array:
        """Stores the guess g(x) and returns the state h, which is the guess in status `STATUS.INIT`."""
        state: Array = self.guess(self.network(x if self.status == STATUS.INIT else stop_gradient(x)))
        return state


def _energy_of_guess(vode: Vode[Any]) -> Float[Array, "..."]:
    error: Array = 0.5 * (stop_gradient(vode.get("h")) - vode.get("u")) ** 2
    return error - stop_gradient(error)
