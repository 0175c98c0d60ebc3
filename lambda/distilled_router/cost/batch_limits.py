"""Limits of batch inference jobs."""

BATCH_MINIMUM = 100
"""Minimum number of records of a job (Service Quotas: minimum number of records per batch inference job, by
model; 100 by default)."""

BATCH_MAXIMUM = 50_000
"""Maximum number of records of a job (Service Quotas: records per batch inference job; the number is from
public code, not from a page of AWS)."""
