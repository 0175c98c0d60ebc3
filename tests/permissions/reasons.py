"""What is granted and used by no test, and what is allowed beside the calls: each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why a permission stays. All but the text are regular expressions; role and action are matched whole."""

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
        "the CDK grants a function's versions with it",
        resource=r":\*$",
    ),
    Reason(_FRAMEWORK, "lambda:GetFunction", "the CDK's framework looks whether a function is there again"),
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
        "Bedrock's documentation asks for it; the double reads one file",
    ),
    Reason(
        _BEDROCKS_OWN,
        r"ec2:\w+",
        "Bedrock puts interfaces into the network of a job, as its documentation has it; the double has none",
    ),
    Reason(
        "JobJobRole",
        "s3:GetObject",
        "Bedrock reads its output folder (custom-model-job-access-security)",
        resource=r"/jobs/",
    ),
    Reason(
        "JobJobRole", "s3:GetObject", "invocation logs are not modelled by the double", resource=r"<Source>"
    ),
    Reason(
        "ReleaseJudgeRole",
        r"bedrock:(CreateModelInvocationJob|StopModelInvocationJob|GetInferenceProfile)",
        "Bedrock may ask the judge in batches (judge-service-roles); the double asks one by one",
    ),
    # What only AWS can show.
    Reason(
        "ReleaseCandidateRole|ThroughputRole",
        "kms:(CreateGrant|DescribeKey|GenerateDataKey|Decrypt)",
        "Bedrock's documentation asks it of whoever serves a model with a key of its own",
        conditions="bedrock",
    ),
    Reason(
        "LabellingRole",
        "kms:Decrypt",
        "sources with somebody else's key: the emulator checks no keys",
        resource="arn:aws:kms",
    ),
    Reason(
        "LabellingRole",
        "s3:(GetObject|ListBucket)",
        "a folder of queries: tests give one file",
        resource=r"<Source>(/queries/.*)?$",
    ),
    Reason(
        "DatasetRole|LabellingRole",
        "s3:GetObjectVersion",
        "a version of a source: tests give the latest",
        resource="<Source>",
    ),
    # What happens now and then: a call that comes too late, or something that somebody stopped.
    Reason(
        "LabellingRole|LabellingStageRole",
        "bedrock:(ListTagsForResource|StopModelInvocationJob|ListModelInvocationJobs)",
        "a batch that runs when it is not wanted any more, or whose making was not answered",
    ),
    Reason(
        "LabellingRole",
        "s3:ListBucket",
        "S3 says that an object is missing only to whoever may list its key (S3 API, GetObject)",
        resource="Data",
    ),
    Reason(
        "LabellingStageRole",
        "bedrock:InvokeModel",
        "questions too few for a batch are asked one by one; the tests' rounds are large",
    ),
    Reason(
        "ReleaseCandidateRole",
        "bedrock:(TagResource|UntagResource)",
        "tags that were changed while the job ran",
        resource="custom-model/",
        conditions="ResourceTag",
    ),
    Reason(
        "ReleaseCandidateRole",
        "states:StartExecution",
        "a labelling that was stopped is started again by the release that waits for it",
    ),
    Reason(
        "ReleaseGradeAnswersRole",
        "bedrock:(ListTagsForResource|StopEvaluationJob)",
        "a grading that an attempt before has left, or that takes too long",
    ),
    Reason(
        "ReleaseRolloutRole",
        "bedrock:InvokeModel",
        "probes of a release that serves from throughput",
        resource="provisioned-model",
    ),
    Reason(
        "ReleaseEvaluationRole|ThroughputRole",
        "dynamodb:Scan",
        "the route's copies, where a human broke the route",
    ),
    Reason(
        "ThroughputRole",
        "bedrock:(DeleteCustomModel|ListCustomModelDeployments|ListTagsForResource)",
        "a model that only throughput served, which goes last with its stack",
    ),
)

NEIGHBOURS: tuple[Reason, ...] = (
    Reason(
        _BEDROCKS_OWN,
        "kms:(Decrypt|GenerateDataKey)",
        "Bedrock's documentation asks for the key without a condition; only Bedrock assumes these roles.",
        what="directly|through",
    ),
    Reason(
        _WAITER,
        "kms:(Decrypt|GenerateDataKey)",
        "CloudFormation names a waiter and shortens long names, so that its role can name no machine.",
        what="another machine",
    ),
    Reason(
        r"\w+MachineRole",
        "s3:ListBucket",
        "The CDK's reader of a map grants the listing of the whole bucket: names of the stacks' own.",
        what="folder|bucket",
    ),
    Reason(
        ".*",
        r"ec2:\w+",
        "Lambda puts no tags of ours on its interfaces, and subnets are a platform's; a function's own code "
        "can do nothing of it.",
        what="somebody else's",
    ),
    Reason(
        ".*",
        r"bedrock:Create(ModelCustomization|ModelInvocation|Evaluation)Job",
        "The call makes it, so it is nobody else's.",
        resource=r"(job|custom-model)/",
        what="somebody else's",
    ),
    Reason(
        "ReleaseCandidateRole|ThroughputRole",
        "bedrock:(CreateCustomModelDeployment|(Create|Update)ProvisionedModelThroughput)",
        "A model that somebody else made may be served: `DistillationJob.from_model_arn`.",
        resource="custom-model/",
        what="somebody else's",
    ),
)
