"""Limits of batch inference jobs."""

BATCH_MINIMUM = 100
"""Records that a job takes at least (Service Quotas: minimum number of records per batch inference job, by
model; 100 unless AWS changed it)."""

BATCH_MAXIMUM = 50_000
"""Records that a job takes at most (Service Quotas: records per batch inference job; the number is seen in
public code, not on a page of AWS)."""
