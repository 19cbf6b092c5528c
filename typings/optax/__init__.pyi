"""Types of what is used of optax, which ships none."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array
from jax.typing import ArrayLike

# Parameters, gradients, updates and states are pytrees of any make.
Tree = Any
ScalarOrSchedule = ArrayLike | Callable[[ArrayLike], ArrayLike]

class InitFn(Protocol):
    def __call__(self, params: Tree) -> Tree: ...

class UpdateFn(Protocol):
    def __call__(self, updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]: ...

class GradientTransformation(NamedTuple):
    init: InitFn
    update: UpdateFn

class GradientTransformationExtraArgs(GradientTransformation): ...

def apply_updates(params: Tree, updates: Tree) -> Tree: ...
def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: float) -> Tree: ...
def sgd(
    learning_rate: ScalarOrSchedule, momentum: float | None = None, nesterov: bool = False
) -> GradientTransformationExtraArgs: ...
def adam(
    learning_rate: ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformationExtraArgs: ...
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 1e-4,
) -> GradientTransformationExtraArgs: ...
def chain(*transforms: GradientTransformation) -> GradientTransformationExtraArgs: ...
def cosine_decay_schedule(init_value: float, decay_steps: int) -> Callable[[ArrayLike], Array]: ...
def warmup_cosine_decay_schedule(
    init_value: float, peak_value: float, warmup_steps: int, decay_steps: int, end_value: float = 0.0
) -> Callable[[ArrayLike], Array]: ...
def clip_by_global_norm(max_norm: ArrayLike) -> GradientTransformation: ...
def linear_schedule(
    init_value: ArrayLike, end_value: ArrayLike, transition_steps: int, transition_begin: int = 0
) -> Callable[[ArrayLike], Array]: ...
def multi_transform(
    transforms: Mapping[Hashable, GradientTransformation], param_labels: Tree | Callable[[Tree], Tree]
) -> GradientTransformationExtraArgs: ...
def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation], static_args: str | Iterable[str] = ()
) -> Callable[..., GradientTransformationExtraArgs]: ...
def exponential_decay(init_value: float, transition_steps: int, decay_rate: float) -> Callable[[ArrayLike], Array]: ...
