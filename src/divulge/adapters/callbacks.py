"""A `Monitor` in the training loops of Keras, Lightning and Hugging Face; a bare loop calls the monitor itself.

Each audits when an epoch ends, stops the training where the monitor says so, and may put back the weights of the best
epoch at the end. Epochs count from 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from divulge.adapters.predictor import needed
from divulge.errors import InputError

if TYPE_CHECKING:
    from divulge.monitor import Monitor


def keras_callback(monitor: Monitor, *, restore_best: bool = False) -> Any:
    """A `keras.callbacks.Callback`, for `model.fit(…, callbacks=[…])`, on any backend.

    Args:
        monitor: a new one.
        restore_best: at the end the weights become those of `monitor.best_epoch`.

    Raises:
        InputError: DV071, Keras is not installed.
    """
    keras = needed("keras", "keras")

    class Watching(keras.callbacks.Callback):  # type: ignore[misc, name-defined]  # the framework is not typed
        kept: Any = None

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            # Trained weights of JAX are in the trainer's hands until somebody asks: fit puts them back before this.
            if monitor(self.model, epoch + 1) and restore_best and monitor.best_epoch == epoch + 1:
                self.kept = self.model.get_weights()
            if monitor.should_stop:
                self.model.stop_training = True

        def on_train_end(self, logs: Any = None) -> None:
            if self.kept is not None:
                self.model.set_weights(self.kept)
            monitor.finish()

    return Watching()


def lightning_callback(monitor: Monitor, *, restore_best: bool = False) -> Any:
    """A `lightning.pytorch.Callback`, for `Trainer(callbacks=[…])`; one process.

    Args:
        monitor: a new one.
        restore_best: at the end the weights become those of `monitor.best_epoch`.

    Raises:
        InputError: DV071, Lightning is not installed; DV068 (when training begins), several processes.
    """
    pytorch = needed("lightning.pytorch", "lightning")

    class Watching(pytorch.Callback):  # type: ignore[misc, name-defined]
        kept: Any = None

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            _check_alone(trainer.world_size)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            epoch = trainer.current_epoch + 1
            if monitor(pl_module, epoch, step=trainer.global_step) and restore_best and monitor.best_epoch == epoch:
                self.kept = _copied(pl_module)
            if monitor.should_stop:
                trainer.should_stop = True

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if self.kept is not None:
                pl_module.load_state_dict(self.kept)
            monitor.finish()

    return Watching()


def hf_callback(monitor: Monitor, *, restore_best: bool = False) -> Any:
    """A `transformers.TrainerCallback`, for `Trainer(callbacks=[…])`; one process.

    The log's steps are the trainer's, so that figures stand beside its own.

    Args:
        monitor: a new one.
        restore_best: at the end the weights become those of `monitor.best_epoch`.

    Raises:
        InputError: DV071, transformers is not installed; DV068 (when training begins), several processes.
    """
    transformers = needed("transformers", "hf")

    class Watching(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        kept: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            _check_alone(args.world_size)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            model, epoch = others["model"], math.ceil(state.epoch - 1e-6)  # one that max_steps cuts is the next
            if monitor(model, epoch, step=state.global_step) and restore_best and monitor.best_epoch == epoch:
                self.kept = _copied(model)
            if monitor.should_stop:
                control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if self.kept is not None:
                others["model"].load_state_dict(self.kept)
            monitor.finish()

    return Watching()


def _copied(module: Any) -> dict[str, Any]:
    """A torch module's state, on the CPU: a second copy of the weights would not fit on many a device."""
    return {
        name: value.detach().to("cpu", copy=True) if hasattr(value, "detach") else value
        for name, value in module.state_dict().items()
    }


def _check_alone(processes: int) -> None:
    if processes > 1:
        raise InputError(
            "DV068",
            f"expected a training in one process, got {processes}: each would audit by itself. Save checkpoints and "
            "audit them afterwards, as a series",
        )
