"""Clamping some nodes and inferring the others, against conditional Gaussians in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

RNG = np.random.default_rng(0)
LATENT, SIZE, BATCH = 3, 6, 4
W = RNG.normal(size=(SIZE, LATENT)) / 2
IMAGES = RNG.normal(size=(BATCH, SIZE))
VISIBLE = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])


class Generative(pxc.EnergyModule):
    """z ~ N(0, I), image ~ N(W z, I); the energy of pixels that are not visible does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.w = px.Param(jnp.asarray(W, jnp.float32))
        self.latent, self.image = pxc.Vode(), pxc.Vode()
        self.image.h.frozen = True

    def __call__(self, visible: Array, image: Array | None = None) -> Array:
        z = self.latent(jnp.zeros(LATENT))
        prediction: Array = self.image(self.w @ z, precision=visible, output="u")
        if image is not None:
            self.image.set("h", image)
        return prediction


def infer(visible: np.ndarray, images: np.ndarray) -> tuple[Generative, Array]:
    model, x = Generative(), jnp.asarray(np.tile(visible, (BATCH, 1)), jnp.float32)
    pxl.initialise(x, jnp.asarray(images, jnp.float32), model=model)
    pxl.infer(x, 500, model=model, optim=pxu.Optim(optax.sgd(0.2)))
    return model, model.latent.h.get()


def test_the_latent_states_of_whole_images() -> None:
    """E[z | image] = (I + WᵀW)⁻¹ Wᵀ image."""
    _, z = infer(np.ones(SIZE), IMAGES)
    np.testing.assert_allclose(z, np.linalg.solve(np.eye(LATENT) + W.T @ W, W.T @ IMAGES.T).T, atol=1e-5)


def test_hidden_pixels_are_recalled_from_the_visible_ones() -> None:
    """E[hidden | visible] = W_h (I + W_vᵀW_v)⁻¹ W_vᵀ visible, whatever the hidden pixels held."""
    seen = VISIBLE == 1
    noise = np.where(seen, IMAGES, RNG.normal(size=IMAGES.shape))
    expected_z = np.linalg.solve(np.eye(LATENT) + W[seen].T @ W[seen], W[seen].T @ IMAGES[:, seen].T).T
    for images in (IMAGES, noise):
        model, z = infer(VISIBLE, images)
        np.testing.assert_allclose(z, expected_z, atol=1e-5)
        recalled = z @ model.w.get().T
        np.testing.assert_allclose(recalled[:, ~seen], expected_z @ W[~seen].T, atol=1e-5)


class Classifier(pxc.EnergyModule):
    """From a label to an image; the label is a node without an energy, which starts where the input says."""

    def __init__(self, w: Array) -> None:
        super().__init__()
        self.w = px.Param(w)
        self.label, self.image = pxc.Vode(None), pxc.Vode()
        self.image.h.frozen = True

    def __call__(self, x: Array, image: Array | None = None) -> Array:
        prediction: Array = self.image(self.w @ self.label(x), output="u")
        if image is not None:
            self.image.set("h", image)
        return prediction


def test_a_label_is_inferred_from_an_image() -> None:
    """Without an energy of its own, the label is the least-squares solution."""
    model = Classifier(jnp.asarray(W, jnp.float32))
    labels = jnp.array([2, 0, 1, 1])
    images = jax.nn.one_hot(labels, LATENT) @ model.w.get().T
    guess = jnp.full((BATCH, LATENT), 1 / LATENT)
    pxl.initialise(guess, images, model=model)
    pxl.infer(guess, 2000, model=model, optim=pxu.Optim(optax.sgd(0.2, momentum=0.9)))
    np.testing.assert_allclose(model.label.h.get(), jax.nn.one_hot(labels, LATENT), atol=1e-4)


def test_a_clamped_node_in_the_middle_stays() -> None:
    model, x = Generative(), jnp.ones((BATCH, SIZE))
    model.latent.h.frozen, model.image.h.frozen = True, False
    pxl.initialise(x, model=model)
    z = jnp.asarray(RNG.normal(size=(BATCH, LATENT)), jnp.float32)
    model.latent.h.set(z)
    pxl.infer(x, 200, model=model, optim=pxu.Optim(optax.sgd(0.2)))
    np.testing.assert_array_equal(model.latent.h.get(), z)
    np.testing.assert_allclose(model.image.h.get(), z @ model.w.get().T, atol=1e-5)
