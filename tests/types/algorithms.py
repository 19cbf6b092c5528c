"""Algorithms take a model, a batch and two optimisers, and report arrays."""

from dataclasses import dataclass
from typing import Any, assert_type

import optax
from jax import Array

import minipcax.learning as pxl
import minipcax.utils as pxu
from tests.types.common import model, x

weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
nodes = pxu.Optim(optax.sgd(0.1))


def algorithms_take_each_others_place() -> None:
    for algorithm in (pxl.PC(8), pxl.IPC(steps=4), pxl.Nudging(0.5), pxl.ZIL(), pxl.EPC(), pxl.Backprop()):
        assert_type(algorithm(x, x, model=model, nodes=nodes, weights=weights), pxl.Report)


def the_parts_of_an_algorithm() -> None:
    pxl.initialise(x, x, model=model)
    assert_type(pxl.infer(x, 8, model=model, optim=nodes), Array)
    assert_type(pxl.relax(x, 8, model=model, optim=nodes), pxl.History)
    assert_type(pxl.learn(x, 0.5, model=model, optim=weights), Array)
    assert_type(pxl.energies(x, model=model), Array)
    assert_type(pxl.accuracy(x, x, model), float)
    assert_type(pxl.predict(x, model), Any)
    assert_type(pxl.NODES | pxl.WEIGHTS, pxu.M)


def an_algorithm_of_ones_own() -> None:
    @dataclass(frozen=True)
    class Eager(pxl.Algorithm):
        steps: int = 8

        def train(self, x: Array, y: Array, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
            pxl.learn(x, model=model, optim=weights)
            return pxl.PC(self.steps).train(x, y, model=model, nodes=nodes, weights=weights)

    assert_type(Eager(3)(x, x, model=model, nodes=nodes, weights=weights), pxl.Report)


class Plain(pxl.Algorithm):
    """Without a decorator."""

    rate: float
    rounds: int = 3

    def train(self, x: Array, y: Array, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        return pxl.PC(self.rounds).train(x, y, model=model, nodes=nodes, weights=weights)


class Long(pxl.PC):
    steps: int = 64
    extra: str = ""


def annotated_attributes_are_hyperparameters() -> None:
    assert_type(Plain(0.1, rounds=2)(x, x, model=model, nodes=nodes, weights=weights), pxl.Report)
    assert_type(Long(8, extra="a").steps, int)
    Plain()  # E: Missing positional argument "rate" [call-arg]
    Plain(0.1, round=2)  # E: Unexpected keyword argument "round" [call-arg]
    Plain("a")  # E: incompatible type "str"; expected "float" [arg-type]
    Long(8, extra=3)  # E: incompatible type "int"; expected "str" [arg-type]
    Long().steps = 3  # E: Property "steps" defined in "Long" is read-only [misc]


def misspelt_and_missing_arguments_are_refused() -> None:
    pxl.PC(8)(x, x, model=model, nodes=nodes)  # E: Missing named argument "weights" [call-arg]
    pxl.PC(8)(x, x, modle=model, nodes=nodes, weights=weights)  # E: Unexpected keyword argument "modle" [call-arg]
    pxl.PC(step=8)  # E: Unexpected keyword argument "step" [call-arg]
    pxl.infer(x, model=model, optim=nodes)  # E: Missing positional argument "steps" [call-arg]
    pxl.learn(x, model=model)  # E: Missing named argument "optim" [call-arg]


def arguments_of_other_types_are_refused() -> None:
    pxl.PC("8")  # E: incompatible type "str"; expected "int" [arg-type]
    pxl.PC(8)(x, x, model=model.layer, nodes=nodes, weights=weights)  # E: incompatible type "Linear" [arg-type]
    pxl.PC(8)(x, x, model=model, nodes=0.1, weights=weights)  # E: incompatible type "float" [arg-type]
    pxl.infer(x, 8.0, model=model, optim=nodes)  # E: incompatible type "float"; expected "int" [arg-type]
    pxl.learn(x, "half", model=model, optim=weights)  # E: incompatible type "str" [arg-type]


@dataclass(frozen=True)
class Half(pxl.Algorithm):
    def train(self, x: Array, y: Array) -> pxl.Report:  # E: Signature of "train" incompatible [override]
        raise NotImplementedError
