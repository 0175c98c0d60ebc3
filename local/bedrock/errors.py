"""The service's error responses."""

from __future__ import annotations

#: The service's texts; they do not say which resource is meant, or what the conflict is.
CONFLICT = "Error occurred because of a conflict while performing an operation."
NOT_FOUND = (
    "The specified resource Amazon Resource Name (ARN) was not found. "
    "Check the Amazon Resource Name (ARN) and try your request again."
)


class ServiceError(Exception):
    """An error response; `code` is the name of its shape in the service model."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServiceError:
    """Return a ValidationException."""
    return ServiceError("ValidationException", message)


def not_found(message: str = NOT_FOUND) -> ServiceError:
    """Return a ResourceNotFoundException."""
    return ServiceError("ResourceNotFoundException", message)


def conflict(message: str = CONFLICT) -> ServiceError:
    """Return a ConflictException."""
    return ServiceError("ConflictException", message)


def over_quota(message: str) -> ServiceError:
    """Return a ServiceQuotaExceededException."""
    return ServiceError("ServiceQuotaExceededException", message)
