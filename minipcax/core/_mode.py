"""Modules that behave differently during training and evaluation."""

from enum import Enum

from minipcax.core._module import BaseModule


class Module(BaseModule, static=("_mode",)):
    """A module with a mode, training or evaluation, which is initially unset.

    `train()`, `eval()` and `mode(...)` also set the mode of all modules below. Layers such as `Dropout` and `BatchNorm`
    depend on it.

    Example:
        >>> class Model(Module):
        ...     pass
        >>> model = Model()
        >>> model.is_train, model.is_eval
        (False, False)
        >>> model.eval()
        >>> model.is_eval
        True
    """

    class MODE(Enum):
        """The purpose for which a model is called."""

        TRAIN = "train"
        EVAL = "eval"

    _mode: MODE | None = None

    def mode(self, value: MODE | None = None) -> MODE | None:
        """Sets the mode of this module and of all modules below it, and returns it.

        Args:
            value: `Module.MODE.TRAIN` or `Module.MODE.EVAL`; `None` only returns the present mode, which may be `None`.

        Raises:
            ValueError: `value` is something else.
        """
        if value is not None:
            if not isinstance(value, Module.MODE):
                raise ValueError(f"expected Module.MODE.TRAIN or Module.MODE.EVAL, found {value!r}")
            self._mode = value
            for module in self.submodules(Module):
                module.mode(value)
        return self._mode

    def train(self) -> None:
        """Puts this module and all modules below it in training mode."""
        self.mode(Module.MODE.TRAIN)

    def eval(self) -> None:
        """Puts this module and all modules below it in evaluation mode."""
        self.mode(Module.MODE.EVAL)

    @property
    def is_train(self) -> bool:
        """Whether the mode is TRAIN."""
        return self._mode is Module.MODE.TRAIN

    @property
    def is_eval(self) -> bool:
        """Whether the mode is EVAL."""
        return self._mode is Module.MODE.EVAL
