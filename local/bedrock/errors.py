"""Errors that the service answers with."""

from __future__ import annotations


class ServiceError(Exception):
    """An error of the service's model, by the name of its shape."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServiceError:
    """A ValidationException."""
    return ServiceError("ValidationException", message)


def not_found(message: str) -> ServiceError:
    """A ResourceNotFoundException."""
    return ServiceError("ResourceNotFoundException", message)


def conflict(message: str) -> ServiceError:
    """A ConflictException."""
    return ServiceError("ConflictException", message)


def over_quota(message: str) -> ServiceError:
    """A ServiceQuotaExceededException."""
    return ServiceError("ServiceQuotaExceededException", message)
