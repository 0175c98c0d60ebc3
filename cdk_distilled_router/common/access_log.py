"""The API's access log, without the CDK."""

from collections.abc import Mapping

ACCESS_LOG: Mapping[str, str] = {
    # API Gateway requires it.
    "requestId": "$context.requestId",
    "time": "$context.requestTime",
    "caller": "$context.identity.userArn",
    "ip": "$context.identity.sourceIp",
    "route": "$context.routeKey",
    "status": "$context.status",
    "latency": "$context.responseLatency",
    "error": "$context.error.message",
}
"""The fields of a line, which has no query."""
