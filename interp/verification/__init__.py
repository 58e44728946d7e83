"""Is a checkpoint what it says it is? Files against hashes, then its claims made anew with the model, one by one."""

from interp.verification.adopt import adopt, give_card
from interp.verification.files import check_files
from interp.verification.plain import verify_plain
from interp.verification.run import Asked, verify
from interp.verification.seal import seal
from interp.verification.verdict import Check, Claim, Verification

__all__ = [
    "Asked",
    "Check",
    "Claim",
    "Verification",
    "adopt",
    "check_files",
    "give_card",
    "seal",
    "verify",
    "verify_plain",
]
