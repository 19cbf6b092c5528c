"""Models and arguments that an algorithm cannot serve: what it says of them, and that it leaves all as it was."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients, relative_difference, train
from tests.oracles import changed

RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), jax.nn.one_hot(jnp.arange(6) % 3, 3)


def chain() -> Chain:
    return Chain([5, 4, 4, 3])


NOT_OBSERVED = "model.vodes[-1].h.frozen = False"
RULES = 'model.vodes[1] = pxc.Vode(ruleset={pxc.STATUS.ALL: ("h <- u",)})'


class WithoutNodes(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = pxnn.Linear(5, 3)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return self.layer(x)


# To an algorithm, a model that a statement has changed, and what is said of it.
MODELS: list[tuple[pxl.Algorithm, str, str]] = [
    *((algorithm, NOT_OBSERVED, r"set h\.frozen = True of its output node")
      for algorithm in (pxl.PC(1), pxl.Backprop(), pxl.Nudging(0.5, 1), pxl.EPC(1), pxl.IPC(1), pxl.ZIL())),
    (pxl.ZIL(), "model.vodes[1] = pxc.Vode(pxc.ce_energy)",
     r"ZIL expected .* se_energy .* found others in \.vodes\[1\]: use PC"),
    (pxl.ZIL(), RULES, r"ZIL expected .* built-in rules, found others in \.vodes\[1\]: use PC"),
    (pxl.ZIL(), "model.vodes[1].precision = pxnn.LayerParam(jnp.full(4, 3.0))",
     r"ZIL expected nodes without a precision, found one in \.vodes\[1\]: use PC"),
    (pxl.EPC(1), RULES, r"EPC expected .* built-in rules, found others in \.vodes\[1\]: use PC"),
    (pxl.Nudging(0.5, 1), "model.vodes[-1].energy_fn = pxc.zero_energy",
     r"se_energy or ce_energy in the observed node \.vodes\[2\]"),
]  # fmt: skip


@pytest.mark.parametrize(("algorithm", "statement", "words"), MODELS)
def test_a_model_that_an_algorithm_cannot_serve(algorithm: pxl.Algorithm, statement: str, words: str) -> None:
    model = changed(chain(), statement, globals())
    before = [param.get() for param in px.tree_extract(model)]
    with pytest.raises(ValueError, match=words):
        gradients(algorithm, model, X, Y)
    assert all(one is other.get() for one, other in zip(before, px.tree_extract(model), strict=True))


def test_backpropagation_without_targets_and_an_observed_node() -> None:
    model = changed(chain(), NOT_OBSERVED, globals())
    optim = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    with pytest.raises(ValueError, match="Backprop expected a model with an observed node, found none"):
        pxl.Backprop()(X, None, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=optim)


def test_a_model_without_nodes() -> None:
    with pytest.raises(ValueError, match="expected a model with value nodes, found none: put a Vode after each layer"):
        pxl.energies(X, model=WithoutNodes())


@pytest.mark.parametrize("make", [pxl.PC, pxl.IPC, pxl.EPC, partial(pxl.Nudging, 0.5)])
@pytest.mark.parametrize("steps", [0, -1, 8.0, True, "8", None])
def test_steps_is_a_positive_int(make: Callable[[Any], Any], steps: Any) -> None:
    with pytest.raises(ValueError, match=f"steps expected a positive int, found {steps!r}"):
        make(steps)


@pytest.mark.parametrize("make", [pxl.PC, pxl.IPC, pxl.EPC, partial(pxl.Nudging, 0.5)])
@pytest.mark.parametrize("unroll", [0, 0.1, -1, None])
def test_unroll_is_a_positive_int_or_a_bool(make: Callable[..., Any], unroll: Any) -> None:
    words = f"unroll expected a positive int, or True .*a tolerance is .*, found {unroll}"
    with pytest.raises(ValueError, match=words):
        make(8, unroll)


@pytest.mark.parametrize("make", [pxl.PC, pxl.IPC, pxl.EPC, partial(pxl.Nudging, 0.5)])
def test_integers_of_numpy_are_numbers_of_steps(make: Callable[..., Any]) -> None:
    expected, _ = gradients(make(3, True), chain(), X, Y)
    found, report = gradients(make(np.int64(3), np.int32(2)), chain(), X, Y)
    assert report.energies.shape == (3,)
    assert relative_difference(found, expected) < 1e-6
    assert make(np.int64(3)) == make(3)


@pytest.mark.parametrize("tolerance", [-0.1, True, "small"])
def test_tolerance_is_a_number_or_none(tolerance: Any) -> None:
    model = chain()
    pxl.initialise(X, Y, model=model)
    words = f"tolerance expected a number of at least 0, a GradientTolerance, or None, found {tolerance!r}"
    for use in (pxl.PC, lambda *args: pxl.infer(X, *args, model=model, optim=pxu.Optim(optax.sgd(0.1)))):
        with pytest.raises(ValueError, match=words):
            use(8, 1, tolerance)


@pytest.mark.parametrize("beta", [5.0, -1.5, 0, 0.0, 2, np.float32(1.5)])
def test_a_nudge_past_the_target(beta: Any) -> None:
    with pytest.raises(ValueError, match=f"Nudging expected a beta other than 0, .* from -1 to 1, found {beta}"):
        pxl.Nudging(beta)


def test_targets_given_to_parts_that_take_none() -> None:
    model = chain()
    optim = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    words = r"steps expected .*, found an array of shape \(6, 3\): targets go to initialise\(x, y, model=model\)"
    for targets in (Y, np.asarray(Y)):
        with pytest.raises(TypeError, match=words):
            pxl.infer(X, targets, model=model, optim=pxu.Optim(optax.sgd(0.1)))  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match=r"scale_by expected a number, found an array of shape \(6, 3\): targets go to"):
        pxl.learn(X, Y, model=model, optim=optim)


class Guessed(Chain):
    """Its first state is guessed."""

    def __init__(self) -> None:
        super().__init__([5, 4, 3])
        self.vodes[0] = pxc.Vode(ruleset={pxc.STATUS.INIT: ("u <- u",)})
        self.guess = pxc.Amortised(self.vodes[0], pxnn.Linear(5, 4))

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        self.guess(x)
        return super().__call__(x, y)


class Doubled(pxc.Vode):
    """Has an energy() of its own."""

    def energy(self, rkg: px.RandomKeyGenerator = px.RKG) -> Array:
        return 2 * super().energy(rkg)


class Decay(pxc.EnergyModule):
    """A penalty on the weights of a layer."""

    def __init__(self, layer: pxnn.Linear) -> None:
        super().__init__()
        self.layer = pxnn.shared(layer)

    def energy(self) -> Array:
        energy: Array = 0.5 * (self.layer.nn.weight.get() ** 2).sum()
        return energy


@pytest.mark.parametrize("algorithm", [pxl.Nudging(0.5, 2), pxl.Backprop(), pxl.ZIL(), pxl.EPC(2)], ids=repr)
def test_energies_of_its_own_are_those_of_value_nodes(algorithm: pxl.Algorithm) -> None:
    decaying, doubled = chain(), chain()
    decaying.decay = Decay(decaying.layers[0])  # type: ignore[attr-defined]  # an attribute more
    doubled.vodes[0] = Doubled()
    for model, found in ((decaying, r"a Decay in \.decay"), (doubled, r"a Doubled in \.vodes\[0\]")):
        gradients(pxl.PC(2), model, X, Y)
        words = f"{type(algorithm).__name__} expected a model with the energies of value nodes alone, found {found}"
        with pytest.raises(ValueError, match=words):
            gradients(algorithm, model, X, Y)


def test_weights_that_learn_without_a_nudge_are_not_nudged() -> None:
    model = chain()
    model.vodes[-1].energy_fn = partial(pxc.se_energy, log_normaliser=True)
    model.vodes[-1].precision = pxnn.LayerParam(jnp.ones(3))
    for each, found in ((model, r"a precision .* in \.vodes\[2\]"), (Guessed(), r"a network .* in \.guess")):
        assert jnp.isfinite(gradients(pxl.PC(2), each, X, Y)[1].loss)
        with pytest.raises(ValueError, match=rf"Nudging divides gradients by beta, .*, found {found}: use PC"):
            gradients(pxl.Nudging(0.5, 2), each, X, Y)
    model.vodes[-1].precision.frozen = True
    gradients(pxl.Nudging(0.5, 2), model, X, Y)


class Feedback(Chain):
    """Predicts the first node also from the state of the second, or of the first: from the last step, if any."""

    def __init__(self, source: int) -> None:
        super().__init__([5, 4, 4, 3])
        self.back, self.source = pxnn.Linear(4, 5), px.static(source)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        state = self.vodes[self.source.get()].get("h")
        return super().__call__(x if state is None else x + self.back(state), y)


@pytest.mark.parametrize(
    ("source", "which"), [(1, r"the state of \.vodes\[1\], which is predicted after"), (0, "its own")]
)
def test_errors_are_not_inferred_through_feedback(source: int, which: str) -> None:
    assert jnp.isfinite(gradients(pxl.PC(2), Feedback(source), X, Y)[0][".back.nn.weight"]).all()
    with pytest.raises(
        ValueError, match=rf"EPC expected .* found that \.vodes\[0\] is predicted from {which}.*: use PC"
    ):
        gradients(pxl.EPC(2), Feedback(source), X, Y)


def test_a_start_that_returns_something_else() -> None:
    starts: dict[str, Any] = {"an array": pxl.initialise, "a NoneType": lambda x, y, *, model: None}
    for found, start in starts.items():
        with pytest.raises(TypeError, match=rf"its start to return the predictions and the loss.*found {found}"):
            gradients(pxl.PC(2, start=start), chain(), X[:2], Y[:2])
    with pytest.raises(TypeError, match=r"PC expected a start, such as .*, found the class RandomStart"):
        pxl.PC(2, start=pxl.RandomStart)  # type: ignore[arg-type]  # what is tested


class NoEnergies(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.vode = pxnn.Linear(5, 3), pxc.Vode()

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return self.vode(self.layer(x), output="u")


class NoCall(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.vode = pxnn.Linear(5, 3), pxc.Vode()


@pytest.mark.parametrize(
    ("make", "lacks"), [(NoEnergies, "nodes"), (NoCall, "call"), (lambda: {"a": chain()}, "nodes")]
)
@pytest.mark.parametrize("part", ["PC", "Backprop", "initialise", "infer", "learn", "relax_errors"])
def test_objects_that_are_not_models(make: Callable[[], Any], lacks: str, part: str) -> None:
    model = make()
    optims = [pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))]
    parts: dict[str, Callable[[], Any]] = {
        "PC": lambda: pxl.PC(2)(X, Y, model=model, nodes=optims[0], weights=optims[1]),
        "Backprop": lambda: pxl.Backprop()(X, Y, model=model, nodes=optims[0], weights=optims[1]),
        "initialise": lambda: pxl.initialise(X, Y, model=model),
        "infer": lambda: pxl.infer(X, 2, model=model, optim=optims[0]),
        "learn": lambda: pxl.learn(X, model=model, optim=optims[1]),
        "relax_errors": lambda: pxl.relax_errors(X, 2, model=model, optim=optims[0]),
    }
    with pytest.raises(
        TypeError, match=rf"model of value nodes, found a \w+, which has no {lacks}: make it an EnergyModule"
    ):
        parts[part]()


@pytest.mark.parametrize("name", ["nodes", "energy", "energies", "train"])
def test_an_attribute_that_would_hide_a_method(name: str) -> None:
    with pytest.raises(TypeError, match=rf"NoCall\.{name} is a method of EnergyModule, .* give it another name"):
        setattr(NoCall(), name, [pxc.Vode()])


@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.IPC(2), pxl.EPC(2), pxl.ZIL(), pxl.Backprop(), None], ids=repr)
def test_an_empty_batch(algorithm: pxl.Algorithm | None) -> None:
    with pytest.raises(ValueError, match=r"expected a batch of samples, found none: an array of shape \(0, 5\)"):
        if algorithm is None:
            pxl.initialise(X[:0], model=chain())
        else:
            gradients(algorithm, chain(), X[:0], Y[:0])
    with pytest.raises(ValueError, match="accuracy expected a batch of samples, found none"):
        pxl.accuracy(X[:0], jnp.zeros(0, int), chain())
    assert pxl.predict(X[:0], chain()).shape == (0, 3)


def test_ensembles_need_a_mask_for_their_weights_and_optimisers() -> None:
    """Three members, without and with all masks, against each alone."""
    members = [Chain([5, 4, 3], seed=seed) for seed in range(3)]
    model = jax.tree.map(lambda *values: jnp.stack(values), *members)
    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1, 0.9), pxl.WEIGHTS(members[0]))
    of_weights = pxu.M(pxnn.LayerParam).to((None, 0))

    def train(masks: Any, model: Chain, weights: pxu.Optim) -> Any:
        def step(x: Array, *, model: Chain, nodes: pxu.Optim, weights: pxu.Optim) -> Array:
            return pxl.PC(2)(x, Y, model=model, nodes=nodes, weights=weights).loss

        return pxf.vmap(masks)(step)(jnp.stack([X] * 3), model=model, nodes=nodes, weights=weights)

    with pytest.raises(ValueError, match=r"model\.layers\[0\]\.nn\.weight has axis None, .* give it an axis"):
        train({}, members[0], weights)
    with pytest.raises(ValueError, match=r"weights\.state has axis None, .* give it an axis in the kwargs_mask"):
        train({"model": of_weights}, model, weights)
    weights.state.set(jax.tree.map(lambda value: jnp.stack([value] * 3), weights.state.get()))
    losses = train({"model": of_weights, "weights": 0}, model, weights)
    for loss, member in zip(losses, members, strict=True):
        np.testing.assert_allclose(loss, gradients(pxl.PC(2), member, X, Y)[1].loss, rtol=1e-5)


def test_an_optimiser_that_is_not_an_optim() -> None:
    model = chain()
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    with pytest.raises(TypeError, match=r"nodes expected an Optim, found a \w+: write Optim\(optax.sgd\(...\)\)"):
        pxl.PC(1)(X, Y, model=model, nodes=optax.sgd(0.1), weights=weights)  # type: ignore[arg-type]  # what is tested


def test_learning_before_there_are_states() -> None:
    model = chain()
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    words = r"expected all nodes to have a state, found none in \.vodes\[0\]\.h, .*: call initialise\(x, y, model="
    with pytest.raises(ValueError, match=words):
        pxl.learn(X, model=model, optim=weights)


def test_a_model_called_before_there_are_states() -> None:
    with pytest.raises(TypeError, match=r"Linear expected an array, found None: .* initialise the nodes first"):
        chain()(X[0])


@pytest.mark.parametrize("optim", [3, optax.sgd(0.1), pxl.LBFGS])
@pytest.mark.parametrize("call", [pxl.infer, pxl.relax, pxl.relax_errors, pxl.learn])
def test_what_is_not_an_optimiser(call: Callable[..., Any], optim: Any) -> None:
    model = chain()
    pxl.initialise(X, Y, model=model)
    with pytest.raises(TypeError, match=r"^optim expected an Optim, found .*: write Optim\("):
        call(X, *(() if call is pxl.learn else (2,)), model=model, optim=optim)


def test_one_optimiser_for_each_layer_is_for_steps_by_hand() -> None:
    model = chain()
    weights = pxu.OptimTree(optax.sgd(0.1), pxnn.Linear, pxl.WEIGHTS(model))
    words = r"weights expected an Optim, found an OptimTree: write .*optax\.multi_transform.*; learn takes an OptimTree"
    with pytest.raises(TypeError, match=words):
        pxl.PC(2)(X, Y, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=weights)  # type: ignore[arg-type]  # what is tested


def test_a_prediction_for_no_samples() -> None:
    words = r"predict expected a batch of samples, found None: .* initialise\(None, y, model=model\)"
    with pytest.raises(ValueError, match=words):
        pxl.predict(None, chain())


def test_a_state_that_does_not_belong_to_a_sample() -> None:
    model = chain()
    model.vodes[1] = pxc.Vode(param_type=px.Param)  # type: ignore[arg-type]  # what is tested
    words = r"expected the state of \.vodes\[1\] to be a VodeParam, .* found a Param: .*param_type"
    for call in (lambda: train(pxl.PC(2), model, X, Y), lambda: pxl.initialise(X, Y, model=model)):
        with pytest.raises(TypeError, match=words):
            call()


@pytest.mark.parametrize("call", [pxl.initialise, pxl.predict])
def test_what_is_not_a_model_of_value_nodes(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="expected a model of value nodes, found a Linear, which has no nodes"):
        call(X, model=pxnn.Linear(5, 3))


def test_errors_of_cleared_nodes() -> None:
    with pytest.raises(ValueError, match=r"found none in \.vodes\[0\]\.h, .*: call initialise"):
        pxl.states_from_errors(X, model=chain())


def test_labels_that_are_not_class_numbers() -> None:
    words = r"one class number for each sample, of shape \(3,\), found labels of shape \(3, 3\)"
    with pytest.raises(ValueError, match=words):
        pxl.accuracy(X[:3], Y[:3], chain())
    with pytest.raises(ValueError, match=words):
        pxl.Report(pxl.History(jnp.ones((1, 1)), ("",)), jnp.array(1.0), X[:3, :3]).accuracy(Y[:3])


def test_histories_of_many_batches_are_checked_together() -> None:
    energies = jnp.zeros((4, 3, 2)).at[2, 1, 0].set(jnp.inf)
    with pytest.raises(FloatingPointError, match="the energy of the model is inf at step 2 of 3"):
        pxl.History(energies, ("", ".vode")).check()


def test_a_history_is_checked_outside_of_transforms() -> None:
    def checked(energies: Array) -> Array:
        return pxl.History(energies, ("", ".vode")).check().energies

    with pytest.raises(TypeError, match="no values inside a transform: return the report or history"):
        jax.jit(checked)(jnp.zeros((3, 2)))


DEEP = [5, 4, 4, 4, 4, 4, 3]


@pytest.mark.parametrize(
    ("algorithm", "rate", "reached"),
    [
        (pxl.PC(2), 0.1, 3),  # the output has its error from the start, and each step takes it to one node more
        (pxl.Nudging(0.5, 4), 0.1, 5),
        (pxl.PC(5), 0.1, 6),
        (pxl.EPC(2), 0.1, 6),
        (pxl.Backprop(), 0.1, 6),
        (pxl.PC(9), 1e-5, 2),  # lost to the rounding of the states
    ],
)
def test_nodes_that_the_error_has_not_reached_are_warned_of(
    algorithm: pxl.Algorithm, rate: float, reached: int
) -> None:
    model = Chain(DEEP)
    weights, before = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model)), [each.nn.weight.get() for each in model.layers]
    report = algorithm(X, Y, model=model, nodes=pxu.Optim(optax.sgd(rate)), weights=weights)
    moves = [float(abs(each.nn.weight - old).max()) for each, old in zip(model.layers, before, strict=True)]
    assert [move > 1e-12 for move in moves] == [number >= 6 - reached for number in range(6)]
    if reached == 6:
        assert report.check() is report
    else:
        words = r"before the error .* reached \d of 6 nodes \(\.vodes\[0\].* not learned: take as many steps .* or EPC"
        with pytest.warns(UserWarning, match=words) as warned:
            report.check()
        assert warned[0].filename == __file__


class Deep(pxc.EnergyModule):
    """Twelve layers of width 64 in a stack, where XLA rounds products of all layers and of one differently."""

    def __init__(self) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(0)
        self.stack = pxc.Stack(lambda: pxnn.Linear(64, 64, rkg=rkg), 12)
        self.last, self.output = pxnn.Linear(64, 2, rkg=rkg), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.output(self.last(self.stack(x)), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


@pytest.mark.parametrize(("steps", "ahead"), [(3, 10), (60, 0)])  # the output and two more after three steps
def test_layers_of_a_stack_that_the_error_has_not_reached_are_warned_of(steps: int, ahead: int) -> None:
    x, y = jnp.asarray(RNG.normal(size=(32, 64)), jnp.float32), jnp.ones((32, 2))
    report = train(pxl.PC(steps), Deep(), x, y)
    with pytest.warns(UserWarning, match=rf"reached {ahead} of 13 nodes") if ahead else nullcontext():
        report.check()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("sign", [1, -1])  # the energy of a Gaussian with a small variance is negative
def test_an_error_on_its_way_in_any_precision(dtype: Any, sign: int) -> None:
    spreading = [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.1, 0.9]]
    with pytest.warns(UserWarning, match=r"reached 2 of 4 nodes \(a, \.\.\.\)"):
        pxl.History(sign * jnp.array(spreading, dtype), ("a", "b", "c", "d")).check()


def test_an_error_on_its_way_in_one_of_several_batches() -> None:
    late, done = [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.1, 0.9]], [[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    for batches in ([late, done], [done, late]):
        with pytest.warns(UserWarning, match=r"reached 2 of 4 nodes \(a, \.\.\.\)"):
            pxl.History(jnp.array(batches), ("a", "b", "c", "d")).check()


def test_energies_that_are_always_zero_are_not_taken_for_an_error_on_its_way() -> None:
    spreading = [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.1, 0.9], [0.0, 0.0, 0.2, 0.8]]
    history = pxl.History(jnp.array(spreading), ("a", "b", "c", "d"))
    assert history.check() is history


class Bootstrapping(Chain):
    """Takes the target from what its own weights make of another view of the sample, as some methods without labels."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        hidden = jnp.tanh(self.layers[0](x[::-1]))
        target = self.layers[2](jnp.tanh(self.layers[1](hidden)))
        u = super().__call__(x, y)
        self.vodes[-1].set("h", jax.lax.stop_gradient(target))
        return u


def test_a_target_that_the_model_makes_from_its_weights() -> None:
    report = train(pxl.PC(4), Bootstrapping([5, 4, 4, 3]), X, None).check()
    assert float(report.loss) > 0


@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.Backprop()])
def test_learning_without_targets(algorithm: pxl.Algorithm) -> None:
    model = chain()
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    with pytest.raises(
        ValueError, match=r"y is None and the state of \.vodes\[2\] .* its own prediction: give targets"
    ):
        algorithm(X, None, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=weights)


def test_a_prediction_writes_nothing_also_when_the_model_is_named() -> None:
    model = chain()
    pxl.initialise(X, Y, model=model)
    before = [vode.h.get() for vode in model.vodes]
    pxl.predict(X[:2], model=model)
    pxl.accuracy(X, jnp.arange(6) % 3, model=model)
    assert all(vode.h.get() is h and vode.cache.get() is None for vode, h in zip(model.vodes, before, strict=True))


def test_the_loss_is_that_of_the_observed_nodes() -> None:
    """Whatever the energy of the others at their forward values."""
    losses = []
    for algorithm in (pxl.PC(1), pxl.IPC(1), pxl.Backprop(), pxl.Nudging(0.5, 1), pxl.EPC(1), pxl.ZIL()):
        model = chain()
        for vode in model.vodes[:-1]:
            vode.energy_fn = partial(pxc.se_energy, log_normaliser=True)
        _, report = gradients(algorithm, model, X, Y)
        expected = 0.5 * ((report.predictions - Y) ** 2).sum(1).mean()
        losses.append(float(report.loss) / float(expected))
    np.testing.assert_allclose(losses, 1, rtol=1e-5)


class Labelled(pxc.EnergyModule):
    """From a clamped label, a node without energy, to an observed image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = pxnn.Linear(2, 3, rkg=px.RandomKeyGenerator(0))
        self.label, self.image = pxc.Vode(None), pxc.Vode()
        self.label.h.frozen = self.image.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.image(self.layer(self.label(x)), output="u")
        if y is not None:
            self.image.set("h", y)
        return u


class Forgetful(Labelled):
    """Sets the observed node whether there is a target or not."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.image(self.layer(self.label(x)), output="u")
        self.image.set("h", u if y is None else y)
        return u


@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.IPC(2), pxl.Nudging(0.5, 2), pxl.ZIL(), pxl.EPC(2)])
def test_a_model_that_forgets_its_target(algorithm: pxl.Algorithm) -> None:
    model = Forgetful()
    model.label, model.image = pxc.Vode(), pxc.Vode()
    model.image.h.frozen = True
    with pytest.raises(ValueError, match=r"set the observed node \.image to its prediction .* `if y is not None"):
        gradients(algorithm, model, jnp.ones((4, 2)), jnp.ones((4, 3)))


@pytest.mark.thorough
@pytest.mark.parametrize("energy_fn", [pxc.ce_energy, partial(pxc.ce_energy)])
def test_nudging_with_cross_entropy_goes_from_the_softmax(energy_fn: Any) -> None:
    """As β vanishes and inference settles, its gradients are those of backpropagation (equilibrium propagation)."""

    def with_cross_entropy() -> Chain:
        model = chain()
        model.vodes[-1].energy_fn = energy_fn
        return model

    expected, _ = gradients(pxl.Backprop(), with_cross_entropy(), X, Y)
    found, _ = gradients(pxl.Nudging(0.01, 400), with_cross_entropy(), X, Y, optax.sgd(0.2))
    last = ".layers[2].nn.weight"
    # Without inference the output's weights see softmax(u) − h = β (softmax(u) − y), divided by β.
    exact, _ = gradients(pxl.Nudging(0.01, 1), with_cross_entropy(), X, Y, optax.sgd(0.0))
    assert relative_difference({last: exact[last]}, {last: expected[last]}) < 1e-3
    assert relative_difference(found, expected) < 0.5


def test_a_schedule_of_the_noise() -> None:
    with pytest.raises(TypeError, match=r"found a schedule: use optax\.inject_hyperparams"):
        pxl.langevin(lambda count: 0.1)  # type: ignore[arg-type]  # what is tested
    nodes = pxu.Optim(optax.inject_hyperparams(pxl.langevin)(learning_rate=0.1))
    _, report = gradients(pxl.PC(2), chain(), X, Y, optax.inject_hyperparams(pxl.langevin)(learning_rate=0.1))
    assert nodes.state.get() is None
    assert report.check() is report


class Dropping(Chain):
    """Draws from the global generator, as layers with dropout do."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return super().__call__(pxnn.Dropout(0.5)(x, key=px.RKG()), y)


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.IPC(2), pxl.Nudging(0.5, 2), pxl.EPC(2), pxl.Backprop()])
def test_a_model_that_draws_is_trained(algorithm: pxl.Algorithm) -> None:
    px.RKG.seed(0)
    model = Dropping([5, 4, 4, 3])
    before, key = model.layers[0].nn.weight.get(), px.RKG.key.get()
    train(algorithm, model, X, Y).check()
    assert bool((model.layers[0].nn.weight.get() != before).any())
    assert bool((px.RKG.key.get() != key).any())


def test_inference_does_not_take_and_forget_the_optimiser_of_weights() -> None:
    model = chain()
    weights = pxu.Optim(optax.adam(0.1), pxl.WEIGHTS(model))
    pxl.initialise(X, Y, model=model)
    with pytest.raises(ValueError, match=r"inference expected the optimiser of the states, found that of weights"):
        pxl.infer(X, 2, model=model, optim=weights)
    assert weights.state.get() is not None


@pytest.mark.parametrize("beta", [0.0, jnp.array(0.0), np.array(0.0), True, "half", jnp.ones(2), 1.5])
def test_beta_is_a_number_that_is_not_zero(beta: Any) -> None:
    with pytest.raises(ValueError, match="Nudging expected a beta other than 0"):
        pxl.Nudging(beta)


class Held(pxl.PC):
    teacher: Any = None


@pytest.mark.parametrize(
    ("teacher", "where"), [(pxnn.LayerParam(1.0), ""), ([pxnn.Linear(2, 2)], r"\[0\]\.nn\.weight")]
)
def test_hyperparameters_hold_no_parameters(teacher: Any, where: str) -> None:
    words = rf"Held expected hyperparameters without parameters, found one at \.teacher{where}, which"
    with pytest.raises(TypeError, match=words):
        gradients(Held(2, teacher=teacher), chain(), X, Y)


class Flagged(Chain):
    """Has a bool that JAX traces."""

    def __init__(self) -> None:
        super().__init__([5, 4, 3])
        self.residual = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return super().__call__(2 * x if self.residual else x, y)


def test_a_flag_of_the_model_is_not_taken_for_a_hyperparameter() -> None:
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        gradients(pxl.PC(2), Flagged(), X, Y)
    assert any("residual: traced" in note and "static(...)" in note for note in caught.value.__notes__)


def test_parameters_that_a_transformation_closes_over_are_named_as_they_never_learn() -> None:
    scale = pxnn.LayerParam(jnp.array(2.0))
    model = chain()
    rules: dict[str | None, tuple[str, ...]] = {
        pxc.STATUS.ALL: ("u <- u:scaled",),
        pxc.STATUS.INIT: ("h, u <- u:scaled",),
    }
    model.vodes[1] = pxc.Vode(ruleset=rules, tforms={"scaled": lambda vode, key, value, rkg: scale * value})
    with pytest.warns(UserWarning, match=r"a transformation of \.vodes\[1\] reads parameters from around it"):
        gradients(pxl.PC(2), model, X, Y)
    dropout = pxnn.Dropout(0.5)  # has none
    model.vodes[1] = pxc.Vode(ruleset=rules, tforms={"scaled": lambda vode, key, value, rkg: dropout(value, key=rkg())})
    gradients(pxl.PC(2), model, X, Y)


@pytest.mark.parametrize("as_default", [False, True])
def test_parameters_that_an_energy_function_closes_over_are_named_as_they_never_learn(as_default: bool) -> None:
    scale = pxnn.LayerParam(jnp.array(2.0))
    model = chain()
    if as_default:
        model.vodes[1].energy_fn = lambda vode, s=scale: s * pxc.se_energy(vode)
    else:
        model.vodes[1].energy_fn = lambda vode: scale * pxc.se_energy(vode)
    with pytest.warns(UserWarning, match=r"the energy function of \.vodes\[1\] reads parameters from around it"):
        train(pxl.PC(2), model, X, Y)


def test_an_entry_that_is_kept_for_inspection_is_accepted() -> None:
    class Watched(Chain):
        def __call__(self, x: Array, y: Array | None = None) -> Array:
            self.vodes[0].set("input", x)
            return super().__call__(x, y)

    train(pxl.PC(2), Watched([5, 4, 4, 3]), X, Y).check()


def test_a_target_that_a_rule_sets_stays_in_either_order() -> None:
    class First(Chain):
        def __call__(self, x: Array, y: Array | None = None) -> Array:
            if y is not None:
                self.vodes[-1].set("target", y)
            return super().__call__(x)

    losses = []
    for first in (True, False):
        model: Chain = First([5, 4, 4, 3]) if first else Chain([5, 4, 4, 3])
        if first:
            model.vodes[-1] = pxc.Vode(ruleset={pxc.STATUS.ALL: ("h <- target",)})
            model.vodes[-1].h.frozen = True
        losses.append(float(train(pxl.PC(2), model, X, Y).loss))
    assert losses[0] == losses[1] > 0


def test_a_target_that_goes_through_a_loop_of_the_model_must_arrive_too() -> None:
    class Lost(Chain):
        def __call__(self, x: Array, y: Array | None = None) -> Array:
            target = jnp.zeros(3) if y is None else y
            (x, target), _ = pxf.scan(lambda _, x, target: ((x, target), None), length=2)(x, target)
            return super().__call__(x)

    with pytest.raises(ValueError, match="the target y reaches no observed node"):
        train(pxl.PC(2), Lost([5, 4, 4, 3]), X, Y)


def test_a_target_that_comes_first_stays_through_transforms() -> None:
    class First(Chain):
        def __call__(self, x: Array, y: Array | None = None) -> Array:
            if y is not None:
                self.vodes[-1].set("h", y)
            pass_on = partial(lambda x, *, model: Chain.__call__(model, x))
            return pxf.cond(pass_on, pass_on)(x.sum() > 0, x, model=self)

    losses = []
    for model in (First([5, 4, 4, 3]), Chain([5, 4, 4, 3])):
        losses.append(float(train(pxl.PC(2), model, X, Y).loss))
        assert vars(model.vodes[-1].h) == {"frozen": True}, "the note ends with the pass"
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    assert losses[0] > 0
