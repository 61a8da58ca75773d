"""Every exception that divulge raises on purpose.

    DivulgeError                 code, message; base of all
    ├── InputError               DV0xx: no evidence can be read from it; DV5xx: private training; also a ValueError
    ├── Unavailable              DV040: this attack, signal or metric cannot be computed from this evidence
    ├── PolicyError              DV3xx: a policy that cannot be understood; also a ValueError
    └── PrivacyGateError         DV1xx: Report.check() on a verdict that does not pass

A message says what was expected, what came, the likely cause and the fix; `divulge explain CODE` says more.
"""

from __future__ import annotations


class DivulgeError(Exception):
    """An error with a stable code.

    Attributes:
        code: "DVnnn", never reused for another meaning; a key of `divulge.codes.CODES`.
        message: one or more plain sentences, without the code.

    >>> str(DivulgeError("DV001", "expected a file"))
    'DV001 expected a file'
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code} {self.message}"


class InputError(DivulgeError, ValueError):
    """What came in is not evidence: a wrong shape, value, name or file.

    >>> isinstance(InputError("DV001", "expected a file"), ValueError)
    True
    """


class Unavailable(DivulgeError):
    """This evidence does not hold what the attack, signal or slice needs; `message` is the reason.

    A default attack that raises it is reported as skipped; one that the user named becomes an error.

    >>> Unavailable("no labels").code
    'DV040'
    """

    def __init__(self, reason: str) -> None:
        super().__init__("DV040", reason)

    def __reduce__(self) -> tuple[type[Unavailable], tuple[str]]:
        return type(self), (self.message,)


class PolicyError(DivulgeError, ValueError):
    """A policy, baseline or waiver that cannot be understood.

    >>> PolicyError("DV301", "an unknown key").code
    'DV301'
    """


class PrivacyGateError(DivulgeError):
    """Raised by `Report.check()` when the verdict is FAIL, INVALID or (by default) INCONCLUSIVE.

    >>> PrivacyGateError("DV101", "verdict FAIL: score is 0.3").code
    'DV101'
    """
