"""The judge: the role of evaluation jobs, in which a model grades answers, and permissions for these jobs."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from distilled_router.release.route import releases_folder

JOBS = "evaluation-job/*"


def judge_role(
    scope: Construct, construct_id: str, *, owner: str, judge: str, bucket: s3.IBucket, key: kms.IKey | None
) -> iam.Role:
    """Return the role that Bedrock assumes for evaluation jobs in this account and Region.

    The job can ask the judge with single calls or in batches (Bedrock user guide, judge-service-roles).
    """
    reports = releases_folder(owner)
    # Answers to grade, and grades, of each attempt.
    folder = f"{reports}*/judge/*"
    return may.bedrock_role(
        scope,
        construct_id,
        jobs=JOBS,
        description="Evaluation jobs: read answers, ask the judge, write grades",
        permissions=[
            may.objects(bucket, scope, ["GetObject", "PutObject", "AbortMultipartUpload"], [folder]),
            may.listing(bucket, ["ListBucket"], [f"{reports}*"]),
            may.Permission(["s3:GetBucketLocation", "s3:ListBucketMultipartUploads"], [bucket.bucket_arn]),
            # DescribeKey: Bedrock user guide, model-evaluation-security-kms.
            may.Permission(
                ["kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"], [key.key_arn] if key else []
            ),
            *may.invoke_in_jobs(judge),
            *may.batch(judge),
            may.bedrock(["StopModelInvocationJob"], [may.account_arn("model-invocation-job/*")]),
            *([may.bedrock(["GetInferenceProfile"], [may.profile(judge)])] if may.is_profile(judge) else []),
        ],
    )


def grading(owner: str, judge: str, role: iam.IRole) -> list[may.Permission]:
    """Return the permissions to create, poll and stop evaluation jobs with a judge."""
    jobs = may.account_arn(JOBS)
    return [
        *_creating(owner, judge, jobs),
        may.tagging(owner, [jobs]),
        may.bedrock(["GetEvaluationJob"], [jobs]),
        may.pass_role(role),
        *stopping(owner),
    ]


def stopping(owner: str) -> list[may.Permission]:
    """Return the permissions to find and stop an owner's evaluation jobs."""
    jobs = may.account_arn(JOBS)
    return [
        may.bedrock(["ListEvaluationJobs"], ["*"]),
        may.bedrock(["ListTagsForResource"], [jobs]),
        may.bedrock(["StopEvaluationJob"], [jobs], may.owned(owner)),
    ]


def _creating(owner: str, judge: str, jobs: str) -> list[may.Permission]:
    """Return the permissions to create evaluation jobs.

    The Service Authorization Reference lists models as resources; AWS's managed policies also grant the jobs.
    """
    action, tagged = "CreateEvaluationJob", may.tagged_for(owner)
    if not may.is_profile(judge):
        return [may.bedrock([action], [jobs, may.foundation_model_arn(judge)], tagged)]
    return [
        may.bedrock([action], [jobs, may.profile(judge)], tagged),
        may.Permission([f"bedrock:{action}"], [may.model_of_profile(judge)], tagged, may.PROFILE_REGIONS),
    ]
