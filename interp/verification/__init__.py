"""Is a checkpoint what it says it is? Files against hashes, then numbers made anew with the model."""

from interp.verification.adopt import adopt, give_card
from interp.verification.files import Check, check_files
from interp.verification.run import Verification, seal, verify, verify_plain

__all__ = ["Check", "Verification", "adopt", "check_files", "give_card", "seal", "verify", "verify_plain"]
