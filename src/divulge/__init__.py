"""divulge tells how much a trained model gives away about who was in its training set."""

from divulge import charts
from divulge.adapters import collect
from divulge.canaries import Canaries, plant_canaries
from divulge.comparison import compare
from divulge.errors import DivulgeError, InputError, PolicyError, PrivacyGateError, Unavailable
from divulge.evidence import Evidence, References
from divulge.metrics import Estimate
from divulge.monitor import Monitor
from divulge.pipeline import audit
from divulge.policy import Policy
from divulge.probability import MembershipProbability, membership_probability
from divulge.references import design, fit_references, load_references
from divulge.references.bagged import references_from_bagging
from divulge.references.free import references_from_base, references_from_cv, references_from_outputs
from divulge.report import Report, Verdict
from divulge.selection import Tail
from divulge.series import Series
from divulge.streams import Stream
from divulge.version import VERSION as __version__  # noqa: N811

__all__ = [
    "Canaries",
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
    "Stream",
    "Tail",
    "Unavailable",
    "Verdict",
    "__version__",
    "audit",
    "charts",
    "collect",
    "compare",
    "design",
    "fit_references",
    "load_references",
    "membership_probability",
    "plant_canaries",
    "references_from_bagging",
    "references_from_base",
    "references_from_cv",
    "references_from_outputs",
]
