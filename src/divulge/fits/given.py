"""What a person gives as a way to train -> a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from divulge.adapters.records import origins
from divulge.errors import InputError
from divulge.fits.sklearn import Sklearn

#: What to write for an object of another framework, which does not say how it was trained.
WRITE = {
    "torch": "fits.Torch(build, epochs=…, optimizer=functools.partial(torch.optim.SGD, lr=…)), where build() gives a "
    "new module",
    "lightning": "fits.Torch(build, epochs=…, optimizer=…), or a function (data, rows, seed) -> predict",
    "keras": "fits.Keras(build, epochs=…, batch_size=…), where build() gives a new compiled model",
    "flax": "fits.Jax(init, apply, epochs=…, optimizer=optax.sgd(…))",
    "jax": "fits.Jax(init, apply, epochs=…, optimizer=optax.sgd(…))",
    "xgboost": "fits.XGBoost(parameters, rounds=…)",
    "lightgbm": "fits.LightGBM(parameters, rounds=…)",
}


def as_fit(thing: Any) -> Callable[..., Any]:
    """A fit, of what is one, or of an estimator with fit and get_params, which becomes `Sklearn(estimator)`.

    Raises:
        InputError: DV411, neither: a model does not say how it was trained.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> as_fit(GaussianNB())
    Sklearn(GaussianNB(priors=None, var_smoothing=1e-09))
    """
    model = not isinstance(thing, type) and next((name for name, _ in origins(thing) if name in WRITE), None)
    if not isinstance(thing, type) and hasattr(thing, "fit") and hasattr(thing, "get_params"):
        return Sklearn(thing)
    if model and not _is_function(thing):
        raise InputError("DV411", f"{_expected(thing)}, which does not say how it was trained. Give {WRITE[model]}")
    if callable(thing) and not isinstance(thing, type):
        function: Callable[..., Any] = thing
        return function
    raise InputError(
        "DV411",
        f"{_expected(thing)}. Give one of divulge.fits (Sklearn, XGBoost, LightGBM, Keras, Torch, Jax), or write "
        "def fit(data, rows, seed): that trains on these rows and returns predict(data, rows, query) -> (k, c) logits",
    )


def _is_function(thing: Any) -> bool:
    """Whether this is code and not a model: a function that jax compiled has a class of jax, too."""
    return hasattr(thing, "__code__") or hasattr(thing, "__wrapped__")


def _expected(thing: Any) -> str:
    name = f"the class {thing.__qualname__}" if isinstance(thing, type) else f"a {type(thing).__qualname__}"
    return f"expected a fit, a function (data, rows, seed) -> predict, or an estimator of scikit-learn; got {name}"
