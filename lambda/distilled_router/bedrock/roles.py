"""The first minutes of a role that is handed to Bedrock: its refusal may be temporary.

IAM is eventually consistent. A job can be refused although its new role and the role's policy are right, so
the refusal counts as "not ready yet" for a few minutes, and as an error after that.
"""

from __future__ import annotations

from botocore.exceptions import ClientError

from distilled_router.aws.errors import NotYetError, code, message

# Seconds for which a role is waited for. Terraform's provider waits two minutes for a new role
# (`propagationTimeout`), and its policy can take longer.
NEW_ROLE_SECONDS = 240
# Seconds between two tries.
RETRY_SECONDS = 15
# Bedrock refuses a role that was created seconds ago with the first of these texts
# (terraform-provider-aws, custom_model.go), and with the others until the role's policy takes effect
# (Bedrock user guide, fine-tuning-troubleshooting).
_TEXTS = (
    "could not assume provided iam role",
    "could not validate getobject permissions",
    "could not validate listbucket permissions",
    ".write_access_check_file",
)
_CODES = frozenset({"ValidationException", "AccessDeniedException"})


class RoleNotReadyError(NotYetError):
    """Bedrock can't use a role. The text names the role, Bedrock's reason and the next step."""

    def __init__(self, refused: str, role: str) -> None:
        """Add the role and the next step to the text of the refusal."""
        super().__init__(
            f"{refused} The trust policy of {role} must name bedrock.amazonaws.com, this account and this "
            "Region's jobs; its policy must allow reading the data and writing the output. A new role can be "
            f"used after some minutes; after {NEW_ROLE_SECONDS // 60} minutes, correct the role and deploy "
            "again."
        )

    @staticmethod
    def is_overdue(seconds: float) -> bool:
        """Return whether a role that has been waited for for some seconds will not become ready."""
        return seconds > NEW_ROLE_SECONDS


def is_not_ready(error: Exception) -> bool:
    """Return whether an error says that Bedrock can't use a role, which is normal for a new one."""
    if not isinstance(error, ClientError):
        return False
    text = message(error).lower()
    return code(error) in _CODES and any(known in text for known in _TEXTS)
