"""divulge tells how much a trained model gives away about who was in its training set."""

from divulge import charts
from divulge.adapters import collect
from divulge.comparison import compare
from divulge.errors import DivulgeError, InputError, PolicyError, PrivacyGateError, Unavailable
from divulge.evidence import Evidence, References
from divulge.metrics import Estimate
from divulge.monitor import Monitor
from divulge.pipeline import audit
from divulge.policy import Policy
from divulge.probability import MembershipProbability, membership_probability
from divulge.report import Report, Verdict
from divulge.selection import Tail
from divulge.series import Series
from divulge.version import VERSION as __version__  # noqa: N811

__all__ = [
    "DivulgeError",
    "Estimate",
    "Evidence",
    "InputError",
    "MembershipProbability",
    "Monitor",
    "Policy",
    "PolicyError",
    "PrivacyGateError",
    "References",
    "Report",
    "Series",
    "Tail",
    "Unavailable",
    "Verdict",
    "__version__",
    "audit",
    "charts",
    "collect",
    "compare",
    "membership_probability",
]
