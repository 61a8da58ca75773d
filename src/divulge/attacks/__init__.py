"""Attacks: `attack(evidence, rng) -> (n,) scores`, higher = more member-like.

Ours are frozen dataclasses, one file a family; any callable of the same shape is an attack too, and so is a
scikit-learn classifier. Which run by default is said in `budgets`, how a name becomes an attack in `naming`.
"""

from divulge.attacks.answers import share_right
from divulge.attacks.attack import Attack, NamedAttack
from divulge.attacks.budgets import BUDGETS
from divulge.attacks.label_only import LabelOnly
from divulge.attacks.learned import Learned
from divulge.attacks.naming import all_named, named
from divulge.attacks.perturbations import Images, Noise, Tabular
from divulge.attacks.quantile import Quantile
from divulge.attacks.reference import AttackR, Difficulty, Lira, Ratio, Rmia
from divulge.attacks.threshold import ClassWise, Threshold
from divulge.attacks.traces import Traces

__all__ = [
    "BUDGETS",
    "Attack",
    "AttackR",
    "ClassWise",
    "Difficulty",
    "Images",
    "LabelOnly",
    "Learned",
    "Lira",
    "NamedAttack",
    "Noise",
    "Quantile",
    "Ratio",
    "Rmia",
    "Tabular",
    "Threshold",
    "Traces",
    "all_named",
    "named",
    "share_right",
]
