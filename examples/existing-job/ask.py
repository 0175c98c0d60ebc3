"""Ask the deployed router, with the credentials of the shell: python examples/existing-job/ask.py QUERY."""

import json
import sys

import boto3


def main(query: str) -> None:
    """Invoke the router's function and print its answer."""
    stack = boto3.client("cloudformation").describe_stacks(StackName="adopted-router")["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    payload = json.dumps({"query": query}).encode()
    answer = boto3.client("lambda").invoke(FunctionName=outputs["RouterFunction"], Payload=payload)
    sys.stdout.write(json.dumps(json.load(answer["Payload"]), indent=2) + "\n")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "red car driving at night")
