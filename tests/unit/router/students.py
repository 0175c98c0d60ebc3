"""Students that the Bedrock stand-in trains and deploys."""

from __future__ import annotations

from json import dumps

from distilled_router.data.conversation import row
from distilled_router.task.task import Task
from local.bedrock import BedrockStandIn

DAY = 24 * 3600
SOUNDS = ("dog barking", "engine roaring", "rain on a roof", "children laughing", "a door slamming")
SIGHTS = ("red car", "sunset over a lake", "man in a hat", "white horse", "city at night")


def training_rows(task: Task) -> str:
    """Return enough rows for a job, about sounds and sights."""
    weights = {
        SOUNDS: {"visual": 0.2, "audio": 0.8, "transcription": 0.0, "metadata": 0.0},
        SIGHTS: {"visual": 0.9, "audio": 0.0, "transcription": 0.0, "metadata": 0.1},
    }
    rows = [
        row(task, f"{query} {number}", label)
        for number in range(15)
        for queries, label in weights.items()
        for query in queries
    ]
    return "".join(f"{dumps(entry)}\n" for entry in rows)


def deployed_student(bedrock: BedrockStandIn, task: Task, name: str = "student") -> str:
    """Train a student and deploy it; return its deployment's ARN."""
    key = f"{name}.jsonl"
    bedrock.s3.put_object(Bucket="data", Key=key, Body=training_rows(task))
    control = bedrock.client("bedrock")
    control.create_model_customization_job(
        jobName=name,
        customModelName=name,
        roleArn="arn:aws:iam::000000000000:role/job",
        baseModelIdentifier="amazon.nova-micro-v1:0:128k",
        customizationType="DISTILLATION",
        customizationConfig={
            "distillationConfig": {
                "teacherModelConfig": {
                    "teacherModelIdentifier": "us.amazon.nova-pro-v1:0",
                    "maxResponseLengthForInference": 200,
                }
            }
        },
        trainingDataConfig={"s3Uri": f"s3://data/{key}"},
        outputDataConfig={"s3Uri": "s3://data/jobs/"},
    )
    bedrock.advance(DAY)
    job = control.get_model_customization_job(jobIdentifier=name)
    deployment = control.create_custom_model_deployment(
        modelDeploymentName=name, modelArn=job["outputModelArn"]
    )
    bedrock.advance(DAY)
    arn: str = deployment["customModelDeploymentArn"]
    return arn
