"""What the team has done already, in the console say: a bucket with rows, and a job that has ended.

Prints the job's ARN. In the local system only: in AWS, the job would be paid for.
"""

import json
import sys
import time
from pathlib import Path

import boto3

ROWS = Path(__file__).resolve().parents[2] / "data"
BUCKET, NAME = "search-data", "search-job"
LOCAL_ACCOUNT = "000000000000"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "bedrock.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
ACCESS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"],
            "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        },
        {"Effect": "Allow", "Action": "bedrock:InvokeModel", "Resource": "*"},
    ],
}


def main() -> None:
    """Upload the rows, start the job, wait for its end and print its ARN."""
    account = boto3.client("sts").get_caller_identity()["Account"]
    if account != LOCAL_ACCOUNT:
        sys.exit(f"This is the account {account}, where the job would be paid for: use the local system.")
    s3, iam, bedrock = boto3.client("s3"), boto3.client("iam"), boto3.client("bedrock")
    s3.create_bucket(Bucket=BUCKET)
    for name in ("training.jsonl", "holdout.jsonl"):
        s3.upload_file(str(ROWS / name), BUCKET, f"rows/{name}")
    role = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    iam.put_role_policy(RoleName=NAME, PolicyName="rows", PolicyDocument=json.dumps(ACCESS))
    job = bedrock.create_model_customization_job(
        jobName=NAME,
        customModelName=NAME,
        roleArn=role,
        baseModelIdentifier="amazon.nova-micro-v1:0:128k",
        customizationType="DISTILLATION",
        trainingDataConfig={"s3Uri": f"s3://{BUCKET}/rows/training.jsonl"},
        outputDataConfig={"s3Uri": f"s3://{BUCKET}/jobs/"},
        customizationConfig={
            "distillationConfig": {
                "teacherModelConfig": {
                    "teacherModelIdentifier": "us.amazon.nova-pro-v1:0",
                    "maxResponseLengthForInference": 1000,
                }
            }
        },
    )["jobArn"]
    while (status := bedrock.get_model_customization_job(jobIdentifier=job)["status"]) == "InProgress":
        time.sleep(1)
    sys.stderr.write(f"{NAME}: {status}\n")
    sys.stdout.write(f"{job}\n")


if __name__ == "__main__":
    main()
