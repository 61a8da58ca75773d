"""Fits: ready ways to train a model on some rows, for `fit_references`; any function of the same form does as well.

    fit(data, rows, seed) -> predict          data = (x, y), rows (m,) int64, seed int
    predict(data, rows, query) -> (k, c) or (k,) logits, probabilities or predictions

The same (data, rows, seed) give the same bits. `fit_many(data, rows, seeds)`, where there is one, trains a batch.
"""

from divulge.fits.boosting import LightGBM, XGBoost
from divulge.fits.given import as_fit
from divulge.fits.jax import Jax
from divulge.fits.keras import Keras
from divulge.fits.sklearn import Sklearn
from divulge.fits.torch import Torch
from divulge.fits.views import Views

__all__ = ["Jax", "Keras", "LightGBM", "Sklearn", "Torch", "Views", "XGBoost", "as_fit"]
