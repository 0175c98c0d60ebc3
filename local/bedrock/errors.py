"""The service's error responses."""

from __future__ import annotations


class ServiceError(Exception):
    """An error response; `code` is the name of its shape in the service model."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServiceError:
    """Return a ValidationException."""
    return ServiceError("ValidationException", message)


def not_found(message: str) -> ServiceError:
    """Return a ResourceNotFoundException."""
    return ServiceError("ResourceNotFoundException", message)


def conflict(message: str) -> ServiceError:
    """Return a ConflictException."""
    return ServiceError("ConflictException", message)


def over_quota(message: str) -> ServiceError:
    """Return a ServiceQuotaExceededException."""
    return ServiceError("ServiceQuotaExceededException", message)
