"""Deploy the platform team's stack with the shell's credentials, and write settings that name its resources.

`python -m examples.network.deploy_platform` writes examples/network/private.toml; an argument names another
file.
"""

import contextlib
import sys
from pathlib import Path

import boto3
import tomlkit

from local.adaptation import adapt
from operate.environment import LOCAL_ACCOUNT
from stacks.settings import shown

STACK = "router-platform"
FOLDER = Path(__file__).resolve().parent
# Settings without a network, and those that are written.
BASE, WRITTEN = FOLDER / "base.toml", FOLDER / "private.toml"


def settings(account: str, named: str) -> str:
    """Return the base settings for an account, with the tables of the stack's output `Settings`."""
    text = adapt(BASE).text if account == LOCAL_ACCOUNT else BASE.read_text(encoding="utf-8")
    document = tomlkit.parse(text)
    document["account"] = account
    for name, table in tomlkit.parse(named).items():
        document.setdefault(name, tomlkit.table()).update(table)
    return tomlkit.dumps(document)


def main(written: Path) -> None:
    """Create the stack unless it exists, and write the settings."""
    cloudformation = boto3.client("cloudformation")
    template = (FOLDER / "platform.yaml").read_text(encoding="utf-8")
    with contextlib.suppress(cloudformation.exceptions.AlreadyExistsException):
        cloudformation.create_stack(
            StackName=STACK, TemplateBody=template, Capabilities=["CAPABILITY_NAMED_IAM"]
        )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=STACK, WaiterConfig={"Delay": 5})
    stack = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    account = boto3.client("sts").get_caller_identity()["Account"]
    written.write_text(settings(account, outputs["Settings"]), encoding="utf-8")
    sys.stdout.write(f"Wrote {shown(written)}, for the account {account}.\n")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]) if sys.argv[1:] else WRITTEN)
