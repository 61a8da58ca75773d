"""JAX: parameters as any pytree, compiled epochs, optimisers of optax; one model at a time or many by jax.vmap."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import needed
from divulge.adapters.records import take
from divulge.errors import InputError
from divulge.fits.batches import Batch, Rows, own
from divulge.fits.naming import shown
from divulge.fits.outputs import Predict, codes_of, normalised, one_query
from divulge.references.jobs import AT_ONCE

BLOCK = 1024
"""Records scored in one go; the last block is filled up, since every new shape is compiled anew."""
FEW = 4
"""Records on which is tried whether rows of a batch depend on each other."""
LOOKED_AT = 64
"""Records among which one is looked for that differs from another."""


@dataclass(frozen=True, repr=False)
class Jax:
    """Trains the parameters of a function on some rows; `many` trains a batch of models at once.

    Attributes:
        init: (key, inputs of one record) -> parameters, a pytree; random by the key alone.
        apply: (parameters, (b, …) inputs) -> (b, c) or (b,) logits, the same in training and in scoring.
        epochs: passes over the model's rows.
        batch_size: rows a batch; the last one may be shorter.
        optimizer: of optax, or a function that gives it: functools.partial(optax.sgd, 0.1).
        loss: from (b, …) outputs and (b, …) targets to (b,) losses of each row by itself. None: cross-entropy of
            logits, of one or several columns.
        at_once: how many models `many` is given in a batch.

    Raises:
        InputError: DV003, a value that cannot be; DV071, JAX or optax is not installed.

    >>> def optimizer():
    ...     import optax
    ...     return optax.sgd(0.1)
    >>> fit = Jax(lambda key, x: np.zeros((4, 2)), lambda weights, x: x @ weights, epochs=20, optimizer=optimizer)
    >>> fit.batch_size, fit.brief()[1]
    (64, 20.0)
    """

    init: Callable[[Any, Any], Any]
    apply: Callable[[Any, Any], Any]
    _: KW_ONLY
    epochs: int
    batch_size: int = 64
    optimizer: Any
    loss: Callable[[Any, Any], Any] | None = None
    at_once: int = AT_ONCE

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "at_once"):
            if getattr(self, name) < 1:
                raise InputError("DV003", f"expected {name} of at least 1, got {getattr(self, name)!r}")

    def __repr__(self) -> str:
        return shown(self)

    def __call__(self, data: Any, rows: Rows, seed: int) -> Predict:
        """A model trained on these rows of (x, y): `predict(data, rows, query)` -> (k, c) or (k,)."""
        jax = needed("jax", "jax")
        programs, inputs, targets = self._ready(data)
        parameters = self._initialised(inputs, seed)
        state = programs.optimizer.init(parameters)
        filled = not self._mixes(parameters, inputs)
        for epoch in range(self.epochs):
            for index, weight in _parts(own([rows], [seed], epoch, self.batch_size), self.batch_size, filled):
                parameters, state = programs.one(parameters, state, inputs, targets, index[0], weight[0])
        return self._predict(jax.device_get(parameters))

    def fit_many(self, data: Any, rows: Sequence[Rows], seeds: Sequence[int]) -> list[Predict]:
        """Models trained side by side, each as by itself but for rounding.

        Models go together that take the same number of batches; where the last ones differ in length, the shorter are
        filled with rows of weight 0, which change nothing. If `apply` mixes the rows of a batch, only models of as
        many rows go together.

        Args:
            data: (x, y).
            rows: (m,) int64 of each model.
            seeds: of each model.
        """
        jax = needed("jax", "jax")
        programs, inputs, targets = self._ready(data)
        first = [self._initialised(inputs, seed) for seed in seeds]
        filled = bool(first) and not self._mixes(first[0], inputs)
        groups: dict[int, list[int]] = defaultdict(list)
        for i, part in enumerate(rows):
            groups[-(-len(part) // self.batch_size) if filled else len(part)].append(i)
        trained: dict[int, Predict] = {}
        for members in groups.values():
            parameters = jax.tree.map(lambda *ones: jax.numpy.stack(ones), *[first[i] for i in members])
            state = jax.vmap(programs.optimizer.init)(parameters)
            theirs, seeded = [rows[i] for i in members], [seeds[i] for i in members]
            for epoch in range(self.epochs):
                for index, weight in _parts(own(theirs, seeded, epoch, self.batch_size), self.batch_size, filled):
                    parameters, state = programs.many(parameters, state, inputs, targets, index, weight)
            stacked = jax.device_get(parameters)
            for place, i in enumerate(members):
                trained[i] = self._predict(jax.tree.map(lambda one, place=place: one[place], stacked))
        return [trained[i] for i in range(len(rows))]

    def brief(self) -> tuple[Jax, float]:
        """A training of one epoch, and how many times as long all of them take."""
        return replace(self, epochs=1), float(self.epochs)

    def _ready(self, data: Any) -> tuple[_Programs, Any, Any]:
        """What is compiled, and (x, y) as arrays of JAX."""
        jax = needed("jax", "jax")
        needed("optax", "jax")
        labels = codes_of(data[1])
        if labels.dtype.kind == "f" and self.loss is None and labels.ndim == 1:
            raise InputError(
                "DV003",
                "expected labels of classes, got floats without a loss, which cross-entropy does not take. For a "
                "regression give loss=lambda outputs, targets: (outputs.reshape(-1) - targets) ** 2",
            )
        return (
            _programs(self.apply, self.optimizer, self.loss),
            jax.tree.map(jax.numpy.asarray, _arrays(data[0])),
            jax.numpy.asarray(labels),
        )

    def _initialised(self, inputs: Any, seed: int) -> Any:
        import jax

        sample = jax.tree.map(lambda one: one[:1], inputs)
        # Not compiled: a function that draws by other means would then draw the same for every model.
        return jax.tree.map(jax.numpy.asarray, self.init(jax.random.PRNGKey(seed), sample))

    def _mixes(self, parameters: Any, inputs: Any) -> bool:
        """Whether a row's outputs depend on another row of the batch."""
        import jax

        few = jax.tree.map(lambda one: one[:LOOKED_AT], inputs)
        leaves = [np.asarray(one) for one in jax.tree.leaves(few)]
        unlike = [i for one in leaves for i in range(FEW, len(one)) if not np.array_equal(one[i], one[FEW - 1])]
        if not unlike:
            return True  # not seen, so that nothing is taken for granted
        made = [
            self.apply(parameters, jax.tree.map(lambda one, last=last: one[np.array([*range(FEW - 1), last])], few))
            for last in (FEW - 1, unlike[0])
        ]
        return not np.array_equal(np.asarray(made[0])[: FEW - 1], np.asarray(made[1])[: FEW - 1])

    def _predict(self, parameters: Any) -> Predict:
        scored = _programs(self.apply, self.optimizer, self.loss).scored

        def predict(data: Any, rows: NDArray[np.int64], query: int) -> NDArray[Any]:
            one_query(query)
            parts = []
            for start in range(0, len(rows), BLOCK):
                part = rows[start : start + BLOCK]
                filled = part if start == 0 else np.concatenate([part, np.full(BLOCK - len(part), part[0])])
                parts.append(np.asarray(scored(parameters, _arrays(take(data[0], filled))))[: len(part)])
            return normalised(np.concatenate(parts), False, data[1], logits=True)

        return predict


class _Programs(NamedTuple):
    """What is compiled once for all models of a kind."""

    optimizer: Any
    one: Callable[..., tuple[Any, Any]]
    many: Callable[..., tuple[Any, Any]]
    scored: Callable[[Any, Any], Any]


@functools.lru_cache(maxsize=4)
def _programs(apply: Callable[[Any, Any], Any], optimizer: Any, loss: Callable[[Any, Any], Any] | None) -> _Programs:
    import jax
    import optax

    chosen = optimizer() if callable(optimizer) else optimizer
    per_row = loss or _cross_entropy

    def mean_loss(parameters: Any, inputs: Any, targets: Any, weight: Any) -> Any:
        losses = per_row(apply(parameters, inputs), targets)
        if losses.shape != weight.shape:
            raise InputError(
                "DV003",
                f"expected a loss of each row, of shape {weight.shape}, got {losses.shape}. Give one that does not "
                "average",
            )
        return (losses * weight).sum()

    def steps(parameters: Any, state: Any, inputs: Any, targets: Any, index: Any, weight: Any) -> tuple[Any, Any]:
        """Some batches, one after the other: (s, k) of one length."""

        def step(before: tuple[Any, Any], batch: tuple[Any, Any]) -> tuple[tuple[Any, Any], None]:
            parameters, state = before
            index, weight = batch
            rows = jax.tree.map(lambda one: one[index], inputs)
            gradients = jax.grad(mean_loss)(parameters, rows, targets[index], weight)
            updates, state = chosen.update(gradients, state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        return jax.lax.scan(step, (parameters, state), (index, weight))[0]  # type: ignore[no-any-return]

    return _Programs(
        chosen,
        jax.jit(steps),
        jax.jit(jax.vmap(steps, in_axes=(0, 0, None, None, 0, 0))),
        jax.jit(apply),
    )


def _cross_entropy(outputs: Any, targets: Any) -> Any:
    """(b,) of logits of one or several columns."""
    import jax

    if targets.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] > 1:
        return jax.nn.logsumexp(outputs, axis=1) - outputs[np.arange(len(targets)), targets]
    outputs = outputs.reshape(targets.shape)
    losses = jax.nn.softplus(outputs) - targets * outputs
    return losses if losses.ndim == 1 else losses.mean(axis=1)


def _parts(batches: list[Batch], size: int, filled: bool) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """(b, s, k) rows and weights of the batches of an epoch; the last one filled up, or by itself."""
    last = batches[-1]
    short = size - last.rows.shape[1]
    if short and filled:
        index = np.concatenate([last.rows, np.repeat(last.rows[:, :1], short, axis=1)], axis=1)
        batches = [*batches[:-1], Batch(index, np.pad(last.weight, ((0, 0), (0, short))))]
    runs = [batches] if filled or not short else [run for run in (batches[:-1], batches[-1:]) if run]
    return [(np.stack([one.rows for one in run], 1), np.stack([one.weight for one in run], 1)) for run in runs]


def _arrays(inputs: Any) -> Any:
    """A table as an array, a list as one; mappings and tuples of several inputs stay."""
    if isinstance(inputs, dict):
        return {name: _arrays(one) for name, one in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_arrays(one) for one in inputs)
    return inputs.to_numpy() if hasattr(inputs, "to_numpy") else np.asarray(inputs)
