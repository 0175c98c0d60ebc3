"""Reasons for permissions that no test uses, and for calls that are allowed beside the recorded ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why a permission is kept. All fields but the text are patterns; role and action match as a whole."""

    role: str
    action: str
    because: str
    resource: str = ""
    conditions: str = ""
    what: str = ""


_WAITER, _FRAMEWORK = r"\w+ProviderwaiterstatemachineRole", r"\w+ProviderFramework(OnEvent|Poll)Role"
_BEDROCKS_OWN = "JobJobRole|LabellingBatchRole|ReleaseJudgeRole"

UNUSED: tuple[Reason, ...] = (
    # The CDK's own grants.
    Reason(
        rf"{_WAITER}|{_FRAMEWORK}|\w+MachineRole",
        "lambda:InvokeFunction",
        "the CDK grants all versions of a function with it",
        resource=r":\*$",
    ),
    Reason(_FRAMEWORK, "lambda:GetFunction", "the CDK's framework checks whether a function exists again"),
    Reason(
        _FRAMEWORK,
        "lambda:InvokeFunction",
        "the CDK's framework grants both handlers to all of its functions",
        resource=r"(OnEvent|IsComplete)\.Arn>$",
    ),
    Reason(_WAITER, "logs:(CreateLogStream|PutLogEvents)", "the CDK's Provider grants it for its logging"),
    # What Bedrock does with its service roles, as its documentation asks for it.
    Reason(
        _BEDROCKS_OWN,
        "s3:(ListBucket|GetBucketLocation|ListBucketMultipartUploads|AbortMultipartUpload)",
        "Bedrock's documentation requires it; the stand-in reads one file",
    ),
    Reason(
        _BEDROCKS_OWN,
        r"ec2:\w+",
        "Bedrock creates network interfaces for a job in a VPC, by its documentation; the stand-in has none",
    ),
    Reason(
        "JobJobRole",
        "s3:GetObject",
        "Bedrock reads its output folder (custom-model-job-access-security)",
        resource=r"/jobs/",
    ),
    Reason(
        "ReleaseJudgeRole",
        r"bedrock:(CreateModelInvocationJob|StopModelInvocationJob|GetInferenceProfile)",
        "Bedrock may ask the judge in batches (judge-service-roles); the stand-in asks one by one",
    ),
    # What only AWS can show.
    Reason(
        "ReleaseCandidateRole|ThroughputStepRole",
        "kms:(CreateGrant|DescribeKey|GenerateDataKey|Decrypt)",
        "Bedrock's documentation requires it for serving a model with a customer managed key",
        conditions="bedrock",
    ),
    Reason(
        "DatasetRole|LabellingRole",
        "kms:Decrypt",
        "sources encrypted with another key: the emulator checks no keys",
        resource="arn:aws:kms",
    ),
    Reason(
        "LabellingRole",
        "s3:(GetObject|ListBucket)",
        "a folder of queries: the tests use one file",
        resource=r"<Source>(/queries/.*)?$",
    ),
    Reason(
        "LabellingStepRole",
        "s3:GetObject",
        "a separate hold-out set: the tests that deploy hold out a part of the queries",
        resource="/datasets/.+/holdout",
    ),
    Reason(
        "DatasetRole|LabellingRole",
        "s3:GetObjectVersion",
        "a version of a source: the tests use the latest",
        resource="<Source>",
    ),
    # Rare cases: a call that arrives too late, or something that was stopped.
    Reason(
        "LabellingRole|LabellingStepRole",
        "bedrock:(ListTagsForResource|StopModelInvocationJob|ListModelInvocationJobs)",
        "a batch job that is no longer needed, or whose create call got no response",
    ),
    Reason(
        "LabellingStepRole",
        "bedrock:InvokeModel",
        "fewer queries than a batch needs are asked one by one; the tests use larger rounds",
    ),
    Reason(
        "ReleaseCandidateRole",
        "bedrock:(TagResource|UntagResource)",
        "tags changed while the job ran",
        resource="custom-model/",
        conditions="ResourceTag",
    ),
    Reason(
        "ReleaseCandidateRole",
        "bedrock:TagResource",
        "a deployment without the release's claim is adopted",
        resource="custom-model-deployment/",
        conditions="ResourceTag",
    ),
    Reason(
        "ReleaseCandidateRole",
        "bedrock:(UntagResource|StopModelCustomizationJob)",
        "a job whose resource was deleted while its next attempt was created",
        resource="model-customization-job/",
    ),
    Reason(
        "ReleaseCandidateRole",
        "states:StartExecution",
        "a release restarts the labelling that it waits for, if it was stopped",
    ),
    Reason(
        "ReleaseGradeAnswersRole",
        "bedrock:(ListTagsForResource|StopEvaluationJob)",
        "an evaluation job that an earlier attempt left, or that takes too long",
    ),
    Reason(
        "ReleaseReleaseRole|ReleaseSweeperRole",
        "bedrock:(ListTagsForResource|StopEvaluationJob|TagResource|UntagResource)",
        "an evaluation job that runs while the release is deleted or moved",
        resource="evaluation-job/",
    ),
    Reason(
        "ThroughputStepRole",
        "bedrock:(TagResource|UntagResource)",
        "tags changed since the throughput was bought, or throughput that was kept is taken over",
        resource="provisioned-model/",
        conditions="ResourceTag",
    ),
    Reason(
        "ReleaseEvaluationRole|ThroughputStepRole",
        "dynamodb:Scan",
        "reads the route's copies after the route was broken by hand",
    ),
)

NEIGHBOURS: tuple[Reason, ...] = (
    Reason(
        _BEDROCKS_OWN,
        "kms:(Decrypt|GenerateDataKey)",
        "Bedrock's documentation requires the key without a condition; only Bedrock assumes these roles.",
        what="directly|through",
    ),
    Reason(
        r"\w+MachineRole",
        "s3:ListBucket",
        "The CDK's item reader of a Map grants listing the whole bucket, which is the stacks' own.",
        what="folder|bucket",
    ),
    Reason(
        ".*",
        r"ec2:\w+",
        "Lambda doesn't put our tags on its interfaces, and subnets belong to the platform; a function's own "
        "code can't make these calls.",
        what="somebody else's",
    ),
    Reason(
        ".*",
        r"ec2:(DeleteNetworkInterface|(A|Una)ssignPrivateIpAddresses)",
        "Lambda checks these actions without a resource before it creates a function, so roles have them on "
        "any interface; a function's own code can't make these calls.",
        what="another account|another Region",
    ),
    Reason(
        ".*",
        r"bedrock:Create(ModelCustomization|ModelInvocation|Evaluation)Job",
        "The call creates it, so it can't be another owner's.",
        resource=r"(job|custom-model)/",
        what="somebody else's",
    ),
    Reason(
        "ReleaseCandidateRole|ThroughputStepRole",
        "bedrock:(CreateCustomModelDeployment|(Create|Update)ProvisionedModelThroughput)",
        "A model of another owner may be served: `DistillationJob.from_model_arn`.",
        resource="custom-model/",
        what="somebody else's|nobody's",
    ),
)

_NOTHING = r"^\*$"

# What policies allow across environments of one account; `resource` is the neighbour's.
SHARED: tuple[Reason, ...] = (
    # Actions that take no resource.
    Reason(
        ".*",
        r"[\w-]+:(Describe|Get|List)\w+",
        "AWS lists all of the account, and measures and samples for it.",
        resource=_NOTHING,
    ),
    Reason(".*", r"xray:Put\w+", "Traces belong to the account.", resource=_NOTHING),
    Reason(
        ".*",
        "logs:((Create|Update|Delete)LogDelivery|PutResourcePolicy)",
        "The logs of state machines and APIs need it. A policy that CloudWatch Logs has for another "
        "environment can be overwritten.",
        resource=_NOTHING,
    ),
    Reason(
        "execution policy",
        "sns:(SetSubscriptionAttributes|Unsubscribe)",
        "A subscription by e-mail has an id that only SNS knows.",
        resource=_NOTHING,
    ),
    Reason("execution policy", "kms:CreateKey", "A new key, with our owner's tag.", resource=_NOTHING),
    # Bedrock.
    Reason(
        ".*",
        r"bedrock:(Get\w+|ListTagsForResource)",
        "Reading tells whether something has our owner's tag, or is adopted by its ARN.",
        resource="bedrock",
    ),
    Reason(
        "ReleaseJudgeRole",
        "bedrock:StopModelInvocationJob",
        "Bedrock stops the batches with which it asks a judge; it gives them no tag of ours, and nobody else "
        "assumes this role.",
        resource="model-invocation-job/",
    ),
    Reason(
        _WAITER,
        "logs:(CreateLogStream|PutLogEvents)",
        "The CDK's Provider grants it on everything; no code of ours runs with this role.",
    ),
    Reason(
        ".*",
        "bedrock:Create(ModelCustomization|ModelInvocation|Evaluation)Job",
        "The call creates it, so it can't be another environment's.",
        resource=r"(job|custom-model)/",
    ),
    Reason(
        "ReleaseCandidateRole|ThroughputStepRole",
        "bedrock:(CreateCustomModelDeployment|(Create|Update)ProvisionedModelThroughput)",
        "A model of another owner may be served: `DistillationJob.from_model_arn`.",
        resource="custom-model/",
    ),
    # For the deployment.
    Reason(
        "execution policy",
        "cloudwatch:DescribeAlarms",
        "Reading only: CloudFormation may list all alarms.",
        resource=":alarm:",
    ),
    Reason(
        "execution policy",
        "apigateway:GET",
        "Reading only: an API that was just deleted has no tag, and CloudFormation looks whether it is gone.",
        resource="/apis/",
    ),
    Reason(
        "execution policy",
        "ec2:(Create|Modify)VpcEndpoint",
        "An endpoint may have the security groups of the platform, which are not tagged for us.",
        resource="security-group/",
    ),
    Reason(
        "execution policy",
        "ec2:Create(SecurityGroup|VpcEndpoint)",
        "The call creates it, so it can't be another environment's.",
        resource="(security-group|vpc-endpoint)/",
    ),
    # Who may act on ours.
    Reason(
        "trust of .*",
        "sts:AssumeRole",
        "A service can assume a role only if a caller may pass it: our own roles, and the deployment's.",
    ),
    Reason(
        "key policy, for .*:root",
        r"kms:\*",
        "IAM policies decide for the account's roles; they name the key.",
    ),
    Reason(
        "key policy, for cloudwatch.*",
        r"kms:\w+\*?",
        "An alarm needs the key of the topic to which it publishes, and the topic's policy names our alarms.",
    ),
    Reason(
        "key policy, for delivery.logs.*",
        r"kms:Decrypt\*",
        "The delivery of logs has one encryption context for the whole account.",
    ),
)
