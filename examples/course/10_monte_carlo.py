# %% [markdown]
# # 10. Monte Carlo predictive coding
#
# ![Samples of states, with the exact posterior, and a density learned](../pictures/monte_carlo.png)
#
# So far, inference looked for one state: the one with the least energy. But an energy says more. Read it as E(h) = −log
# p(h, y), up to a constant. Then exp(−E), divided by its sum over all h, is the *posterior* p(h | y): how probable each
# state h is, given the observation y. Monte Carlo PC draws *samples* from it. All that changes is the optimiser of the
# nodes.

# %%
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from lesson import QUICK, save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu


class Generator(pxc.EnergyModule):
    """A hidden cause h ~ N(mean + x, 1) of two numbers, and an observation y ~ N(w h, 1) of as many."""

    def __init__(self, w: Array, mean: Array) -> None:
        super().__init__()
        self.w, self.mean = pxnn.LayerParam(w), pxnn.LayerParam(mean)
        self.cause, self.observed = pxc.Vode(), pxc.Vode()
        self.observed.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        cause = self.cause(self.mean + x)
        u: Array = self.observed(self.w.get() @ cause, output="u")
        if y is not None:
            self.observed.set("h", y)
        return u


# %% [markdown]
# ## From descent to sampling
#
# *Langevin dynamics* is gradient descent with noise ξ, drawn anew in every step from a standard normal:
#
#     h ← h − lr ∂E/∂h + √(2 lr) ξ
#
# The gradient pulls towards low energies, the noise pushes away, and where they balance, the states are distributed as
# exp(−E). `pxl.langevin` is such an optimiser; its keys come from `px.RKG`, the generator of random keys that
# everything uses unless told otherwise. Every sample of the batch is a chain of its own, so we take the same y many
# times.

# %%
px.RKG.seed(0)
chains, y = 40_000, jnp.array([3.0, 1.0])
w = jnp.array([[2.0, 0.0], [1.0, 1.0]])
model = Generator(w, mean=jnp.zeros(2))
x, targets = jnp.zeros((chains, 2)), jnp.tile(y, (chains, 1))
pxl.initialise(x, targets, model=model)  # every state becomes its prediction, and the observed node y
print("at the start all chains are at", model.cause.h[0], "and after")
for steps in [1, 10, 100]:
    pxl.infer(x, steps, model=model, optim=pxu.Optim(pxl.langevin(0.02)))
    print(f"{steps:4} more steps: mean {model.cause.h.mean(0)}, variances {model.cause.h.get().var(0)}")

# %% [markdown]
# ## Against the exact posterior
#
# The model is linear and its noise normal, so the posterior is known. With E = ½|h|² + ½|y − W h|², the curvature of
# the energy is Λ = 1 + WᵀW, the covariance of the posterior is its inverse, and its mean is Λ⁻¹Wᵀy: the state that
# ordinary inference finds.

# %%
precision = np.eye(2) + np.asarray(w.T @ w)
covariance = np.linalg.inv(precision)
mean = covariance @ np.asarray(w.T @ y)
samples = np.asarray(model.cause.h.get())
print("mean, exact and of the samples:", mean, samples.mean(0))
print("covariance, exact and of the samples:", covariance.ravel(), np.cov(samples.T).ravel())

pxl.initialise(x, targets, model=model)
pxl.infer(x, 200, model=model, optim=pxu.Optim(optax.sgd(0.1)))
print("without noise, all chains end at", model.cause.h[0], "with variances", model.cause.h.get().var(0))

# %% [markdown]
# The samples spread a little too far. A step of finite size widens the distribution: along a direction of curvature λ
# the variance is 1 / (1 − lr λ / 2) times the exact one. A smaller rate costs more steps; `momentum=0.9` gets some of
# them back. We look at the direction of the largest curvature, where it matters most.

# %%
largest, direction = (found[..., -1] for found in np.linalg.eigh(precision))
for rate in [0.2, 0.1, 0.02]:
    pxl.infer(x, 300, model=model, optim=pxu.Optim(pxl.langevin(rate)))
    ratio = float((model.cause.h.get() @ direction).var()) * largest
    print(f"lr {rate}: variance over the exact one {ratio:.3f}, expected {1 / (1 - rate * largest / 2):.3f}")

# %% [markdown]
# ## A density learned
#
# Why samples? Because learning wants them. The weights should make the data probable: raise log p(y), where the hidden
# cause is *averaged* over. The gradient of −log p(y) is the mean of ∂E/∂W over the posterior, so `PC` with `langevin`
# follows it. At the single most likely state, PC learns something else: there, a large W always pays, as it lets a
# small h, which costs little, explain y.
#
# The model says y ~ N(W m, W Wᵀ + 1): a little too narrow, as samples of h are too wide. With y free, it draws data.

# %%
rng = np.random.default_rng(0)
true_w = np.array([[2.0, 0.0], [1.0, 1.0]])
data = jnp.asarray(rng.normal(size=(1000, 2)) @ true_w.T + rng.normal(size=(1000, 2)) + [1.0, -1.0], jnp.float32)
starts, generators = jnp.zeros((1000, 2)), dict[str, Generator]()
for name, optimiser in {"PC": optax.sgd(0.1), "Monte Carlo PC": pxl.langevin(0.02)}.items():
    generators[name] = learned = Generator(jnp.eye(2), mean=jnp.zeros(2))
    weights = pxu.Optim(optax.sgd(optax.exponential_decay(0.1, 200, 0.5)), pxl.WEIGHTS(learned))
    nodes, algorithm = pxu.Optim(optimiser), pxl.PC(steps=150)
    for _ in range(20 if QUICK else 500):
        algorithm(starts, data, model=learned, nodes=nodes, weights=weights)
    print(f"{name}: mean {learned.w.get() @ learned.mean.get()}, covariance")
    print(learned.w.get() @ learned.w.get().T + jnp.eye(2))
(sampler := generators["Monte Carlo PC"]).observed.h.frozen = False  # now y is sampled too, together with h
pxl.initialise(starts, model=sampler)
pxl.infer(starts, 20 if QUICK else 1000, model=sampler, optim=pxu.Optim(pxl.langevin(0.02)))
print("of generated samples: covariance\n", np.cov(np.asarray(sampler.observed.h.get()).T))
print("of the data: mean", np.asarray(data.mean(0)), "covariance\n", np.cov(np.asarray(data).T))

# %%
angle = np.linspace(0, 2 * np.pi, 100)
circle = 2 * np.stack([np.cos(angle), np.sin(angle)])  # two standard deviations
left, right = (figure := Figure(figsize=(8, 3.2), layout="constrained")).subplots(1, 2)
left.scatter(*samples[:1000].T, s=2, label="samples")
left.plot(*(mean[:, None] + np.linalg.cholesky(covariance) @ circle), "black", label="exact, 2σ")
left.set(title="posterior of the hidden cause", xlabel="h₁", ylabel="h₂")
right.scatter(*np.asarray(data).T, s=2, color="grey", label="data")
for name, learned in generators.items():
    spread = np.linalg.cholesky(np.asarray(learned.w.get() @ learned.w.get().T) + np.eye(2))
    right.plot(*(np.asarray(learned.w.get() @ learned.mean.get())[:, None] + spread @ circle), label=f"{name}, 2σ")
right.set(title="density learned", xlabel="y₁", ylabel="y₂")
left.legend()
right.legend()
save(figure, "monte_carlo.png")

# %% [markdown]
# ## Exercises
#
# 1. Start the chains far away, `model.cause.h.set(model.cause.h + 10)`. How many steps until they have forgotten it?
# 2. Learn with `langevin(0.005)` and 600 steps. How much closer to the covariance of the data does it come?
# 3. Learn with 5 steps of inference instead of 150. Which part of the density goes wrong?
#
# In the code: `minipcax/learning/_langevin.py`. Next: predictive coding that is backpropagation.
