# %% [markdown]
# # 13. Your own energy, algorithm, loop and solver
#
# ![A curve fitted to data with gaps, by squared errors and by an energy of one's own](../pictures/your_own.png)
#
# Four things are meant to be replaced by your own: the energy of a node, the algorithm, the training loop,
# and the way inference finds its minimum. The task: learn two curves, although half of their values are missing.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from lesson import QUICK, save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

WEIGHTS, STATES = pxu.M(pxnn.LayerParam), pxu.M(pxc.VodeParam).hasnot(frozen=True)  # masks, see below
rng, time = np.random.default_rng(0), np.linspace(-3, 3, 128, dtype=np.float32)[:, None]
x = np.concatenate([wave(k * time) for k in (0.5, 1, 1.5) for wave in (np.sin, np.cos)], axis=1)  # six inputs
y = np.concatenate([np.sin(2 * time), np.abs(time) - 1], axis=1)
gaps = np.where(rng.random(y.shape) < 0.5, np.nan, y)

# %% [markdown]
# ## An energy, and an algorithm
#
# An energy is a function of a node that returns one term for each element of its state h, usually ½(h − u)². A missing
# value says nothing about the prediction u, so its term is zero here. For squared errors we fill the gaps with 0. An
# algorithm is a subclass of `pxl.Algorithm` with a method `train`; its annotated attributes are its settings. This one
# infers and learns in rounds: one round is PC, many rounds of one step are close to IPC.


# %%
def of_known(node: pxc.Vode) -> Array:
    h, u = node.get("h"), node.get("u")
    return 0.5 * jnp.where(jnp.isnan(h), 0, h - u) ** 2


class Model(pxc.EnergyModule):
    def __init__(self, energy: pxc.EnergyFn = pxc.se_energy) -> None:
        super().__init__()
        self.first, self.hidden = pxnn.Linear(6, 32, rkg=px.RandomKeyGenerator(0)), pxc.Vode()
        self.last, self.output = pxnn.Linear(32, 2, rkg=px.RandomKeyGenerator(1)), pxc.Vode(energy)
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.output(self.last(self.hidden(jnp.tanh(self.first(x)))), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


class Rounds(pxl.Algorithm):
    rounds: int
    steps: int

    def train(self, x: Array, y: Array, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        predictions, loss = pxl.start(x, y, model=model)
        histories = []
        for _ in range(self.rounds):
            histories.append(pxl.relax(x, self.steps, model=model, optim=nodes))
            pxl.learn(x, model=model, optim=weights)
        return pxl.Report(histories[-1], loss, predictions)


axes = (figure := Figure(figsize=(6, 3), layout="constrained")).subplots()
axes.plot(time, gaps[:, 0], ".", color="grey", label="known")
for energy, targets in ((pxc.se_energy, np.nan_to_num(gaps)), (of_known, gaps)):
    model = Model(energy)
    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.adam(0.003), pxl.WEIGHTS(model))
    for _ in range(50 if QUICK else 1500):
        Rounds(rounds=2, steps=8)(x, targets, model=model, nodes=nodes, weights=weights)
    axes.plot(time, (curves := pxl.predict(x, model))[:, 0], label=energy.__name__)
    print(f"{energy.__name__:9}: distance to the true curves {jnp.sqrt(jnp.mean((curves - y) ** 2)):.3f}")
axes.legend()
save(figure, "your_own.png")

# %% [markdown]
# ## A loop
#
# Now without `pxl`. *Masks* such as `STATES` select parameters. That of `pxf.vmap`, which turns the model of one sample
# into that of a batch, says which have an axis of samples. `pxu.step` sets the *status* for a block, and clears the
# caches; in `STATUS.INIT` a prediction becomes the state. `pxf.scan` is a compiled loop, `pxf.cond` a choice.


# %%
@pxf.vmap({"model": pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))})
def energies(x: Array, y: Array | None, *, model: Model) -> Array:
    with pxu.step(model, None if y is None else pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        model(x, y)
        return model.energy()


def total(x: Array, *, model: Model) -> Array:
    return energies(x, None, model=model).sum()


@pxf.jit
def train_on_batch(x: Array, y: Array, *, model: Model, nodes: pxu.Optim, weights: pxu.Optim) -> None:
    def infer(_: None, /, *, model: Model, nodes: pxu.Optim) -> tuple[tuple[()], Model]:
        return (), nodes.step(model, pxf.grad({"model": STATES})(total)(x, model=model)["model"])

    def learn(*, model: Model, weights: pxu.Optim) -> None:
        weights.step(model, pxf.grad({"model": WEIGHTS})(total)(x, model=model)["model"], scale_by=1 / len(x))

    loss = energies(x, y, model=model).mean()
    nodes.init(STATES(model))
    pxf.scan(infer, length=8)(model=model, nodes=nodes)
    pxf.cond(learn, lambda *, model, weights: None)(loss > 0.01, model=model, weights=weights)


ours, theirs = Model(), Model()
train_on_batch(jnp.array(x), jnp.array(y), model=ours, nodes=nodes, weights=pxu.Optim(optax.sgd(0.1), WEIGHTS(ours)))
pxl.PC(8)(x, y, model=theirs, nodes=nodes, weights=pxu.Optim(optax.sgd(0.1), WEIGHTS(theirs)))
print("our loop against pxl.PC, difference:", jnp.abs(ours.first.nn.weight - theirs.first.nn.weight).max())

# %% [markdown]
# A `pxl.Solver` takes the place of the optimiser of the nodes. It sees an energy as a pure function of the states.


# %%
class Newton(pxl.Solver):
    def solve(self, problem: pxl.Problem, steps: int) -> pxl.Solution:
        def step(states: dict[str, Array], _: None) -> tuple[dict[str, Array], pxl.Snapshot]:
            flat, shaped = ravel_pytree(states)
            gradient, hessian = (d(lambda flat: problem.energy(shaped(flat)))(flat) for d in (jax.grad, jax.hessian))
            return shaped(flat - jnp.linalg.solve(hessian, gradient)), problem.snapshot(states)

        return pxl.Solution(*jax.lax.scan(step, problem.states, length=steps), jnp.array(steps))


pxl.initialise(x[:4], y[:4], model=ours)
print("Newton's method:", pxl.infer(x[:4], 4, model=ours, optim=Newton()))

# %% [markdown]
# ## Exercises
#
# 1. Write the energy of a Poisson distribution, u − h log u up to a constant, for counts. What must u be?
# 2. Write iPC, a loop with one gradient, by the mask `STATES | WEIGHTS`, and two optimisers. Is it `pxl.IPC(8)`?
# 3. Let `infer` return the energy of each sample as well, by `pxf.value_and_grad(..., has_aux=True)`, see lesson 2.
#
# In the code: `minipcax/learning/_pc.py`, `minipcax/utils/_mask.py`, `minipcax/learning/_solver.py`. Next: sweeps.
