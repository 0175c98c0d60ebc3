"""The claims of GitHub's tokens that AWS STS gives to trust policies; MiniStack gives `aud`, `sub` and `amr`.

Source: IAM user guide, reference_policies_iam-condition-keys, "Available keys for AWS OIDC federation"; since
January 2026 (what's new, aws-sts-supports-validation-identity-provider-claims).
"""

from __future__ import annotations

from typing import Any

from ministack.services import cognito, sts

HOST = "token.actions.githubusercontent.com"
CLAIMS = (
    "actor",
    "actor_id",
    "enterprise_id",
    "environment",
    "job_workflow_ref",
    "ref",
    "repository",
    "repository_id",
    "workflow",
)
_principal = sts._web_identity_principal


def install() -> None:
    """Put this function in place of MiniStack's."""
    sts._web_identity_principal = principal


def principal(token: str, provider_id: str, role_arn: str) -> tuple[str, dict[str, Any]]:
    """Return the provider that a token names, and the token's condition keys."""
    provider, keys = _principal(token, provider_id, role_arn)
    if not str(provider).endswith(f"oidc-provider/{HOST}"):
        return provider, keys
    claims = cognito._decode_id_token_unverified(token)
    return provider, {**keys, **{f"{HOST}:{name}": claims[name] for name in CLAIMS if name in claims}}
