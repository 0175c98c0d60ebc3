"""The services that functions in private subnets need, without the CDK.

A test compares the lists with the policies of all environments. Functions don't call these services
themselves: CloudWatch Logs and X-Ray (Lambda and Step Functions deliver), KMS (S3, DynamoDB, Lambda and
Bedrock call it with the caller's permissions), SNS (Step Functions publishes) and STS (Lambda provides the
role's credentials).
"""

from collections.abc import Mapping

INTERFACES: Mapping[str, str] = {
    "bedrock": "Create, poll and delete jobs, models, deployments and throughput.",
    "bedrock-runtime": "Invoke models in the router, the evaluation, the rollout and the labelling.",
    "lambda": "Invoke the custom resources' functions, from the CDK's Provider framework.",
    "monitoring": "Read the router's metrics in the rollout.",
    "states": "Start, poll and stop executions of releases, labellings and the Provider framework.",
}
GATEWAYS: Mapping[str, str] = {
    "dynamodb": "Read and write the releases table with the route.",
    "s3": "Access the data bucket and source files, load the router's classification heads, answer "
    "CloudFormation, run Bedrock's jobs in the VPC.",
}
