"""The deployed API against docs/openapi.yaml: schemathesis generates requests, the answers match the
document.

Requests are signed and sent over TLS, through the emulator's HTTP API to the deployed function.
"""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from operate.route import Router
from tests.rollouts.scene import Scene
from tests.unit.router.api_document import PATH

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("rollouts")]

# Valid and invalid requests for each path; schemathesis also tries the limits of each schema.
EXAMPLES = 50
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

schema = schemathesis.openapi.from_path(PATH)


class Signature(requests.auth.AuthBase):
    """Signs each request."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed = AWSRequest(request.method, request.url, data=request.body)
        SigV4Auth(self._router.credentials, "execute-api", self._router.region).add_auth(signed)
        request.headers.update(dict(signed.headers))
        return request


@pytest.fixture
def router(scene: Scene) -> Router:
    """Send requests to the deployed router."""
    return scene.system.router()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_api_is_as_its_document_says(case: schemathesis.Case[Any], router: Router) -> None:
    response = case.call(
        base_url=router.url.removesuffix("/route"), auth=Signature(router), verify=router.verify
    )
    case.validate_response(response, checks=CHECKS)
    if case.method == "POST":  # all other answers are API Gateway's own
        assert response.status_code in (200, 400)
