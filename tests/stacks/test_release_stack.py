"""The releases table, the notifications, the release state machine and the sweeper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from distilled_router.release.route import TIME_TO_LIVE
from tests.stacks.assembly import Assembly, Resource, Statement


def machine(assembly: Assembly) -> Resource:
    return assembly.one("AWS::StepFunctions::StateMachine", "ReleaseStateMachine")


def followers(state: Mapping[str, Any]) -> Iterator[str]:
    for part in (state, *state.get("Choices", ()), *state.get("Catch", ())):
        if "Next" in part:
            yield part["Next"]
    if "Default" in state:
        yield state["Default"]


def test_table_is_encrypted_with_our_key_and_can_be_restored(assembly: Assembly) -> None:
    table = assembly.one("AWS::DynamoDB::Table", "Releases").properties
    assert assembly.plain(table["SSESpecification"]) == {
        "SSEEnabled": True,
        "SSEType": "KMS",
        "KMSMasterKeyId": "<Key.Arn>",
    }
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]


def test_old_copies_of_the_route_end_and_requests_of_resources_do_not(assembly: Assembly) -> None:
    table = assembly.one("AWS::DynamoDB::Table", "Releases").properties
    assert table["TimeToLiveSpecification"] == {"AttributeName": TIME_TO_LIVE, "Enabled": True}
    others = [each for each in assembly.resources("AWS::DynamoDB::Table") if each.properties != table]
    assert others
    assert not any("TimeToLiveSpecification" in other.properties for other in others)


def test_topic_is_encrypted_with_our_key_and_refuses_what_is_not_tls(assembly: Assembly) -> None:
    assert assembly.plain(assembly.one("AWS::SNS::Topic").properties["KmsMasterKeyId"]) == "<Key.Arn>"
    statements = assembly.statements(assembly.one("AWS::SNS::TopicPolicy").properties["PolicyDocument"])
    (denial,) = [statement for statement in statements if statement.effect == "Deny"]
    assert denial.actions == {"sns:Publish"}
    assert denial.principal == {"AWS": "*"}
    assert denial.conditions == {"Bool": {"aws:SecureTransport": "false"}}


def test_topic_is_an_output_for_other_subscribers(assembly: Assembly) -> None:
    outputs = assembly.templates["release"]["Outputs"]
    assert assembly.plain(outputs["TopicArn"]["Value"]) == "<Notifications>"


def test_release_machine_may_publish_to_the_encrypted_topic(assembly: Assembly) -> None:
    """Publishing to an encrypted topic needs the use of its key (SNS developer guide, KMS)."""
    statements = assembly.role_statements(assembly.one("AWS::IAM::Role", "ReleaseStateMachineRole"))
    (publish,) = [statement for statement in statements if "sns:Publish" in statement.actions]
    assert publish.resources == {"<Notifications>"}
    usable = [statement for statement in statements if statement.resources == {"<Key.Arn>"}]
    assert {"kms:Decrypt", "kms:GenerateDataKey"} <= {
        action.rstrip("*") for statement in usable for action in statement.actions
    }


def test_release_machine_logs_everything_is_traced_and_ends(assembly: Assembly) -> None:
    properties = machine(assembly).properties
    logging = assembly.plain(properties["LoggingConfiguration"])
    assert logging["Level"] == "ALL"
    assert logging["Destinations"] == [
        {"CloudWatchLogsLogGroup": {"LogGroupArn": "<ReleaseStateMachineLogs.Arn>"}}
    ]
    assert properties["TracingConfiguration"] == {"Enabled": True}
    seconds = assembly.definition(machine(assembly))["TimeoutSeconds"]
    assert seconds > assembly.settings.release.timeout_hours * 3600


def test_release_machines_log_group_has_the_name_that_spares_the_resource_policy(assembly: Assembly) -> None:
    """CloudWatch Logs' resource policy holds 5,120 characters; groups under this prefix share one entry."""
    name = assembly.one("AWS::Logs::LogGroup", "ReleaseStateMachineLogs").properties["LogGroupName"]
    assert name == f"/aws/vendedlogs/states/{assembly.settings.owner}-release"


def test_every_function_that_the_machine_calls_has_a_catch_for_everything(assembly: Assembly) -> None:
    states = assembly.definition(machine(assembly))["States"]
    calls = {
        name: state
        for name, state in states.items()
        if str(state.get("Resource", "")).endswith(".Arn>") or state["Type"] == "Map"
    }
    settings = assembly.settings
    more = (
        settings.endpoint.kind == "provisioned",
        settings.evaluation.judge is not None,
        not settings.head.is_off,
    )
    assert len(calls) == 8 + sum(more)
    for name, state in calls.items():
        assert ["States.ALL"] in [catch["ErrorEquals"] for catch in state.get("Catch", [])], name
        # A catch without a result path would lose the release's digest.
        assert all(catch["ResultPath"] == "$.error" for catch in state["Catch"]), name


def test_errors_lead_to_the_failure_path_until_the_release_is_live(assembly: Assembly) -> None:
    states = assembly.definition(machine(assembly))["States"]
    caught = {name: {catch["Next"] for catch in state.get("Catch", ())} for name, state in states.items()}
    live, failed = "Notice: live", "Notice: failed"
    # Once it is live, an error in cleanup or notification must not fail it.
    assert caught.pop("RetireOld") == {live}
    assert caught.pop("Notify: live") == {"Live"}
    # Subscribers are notified even if cleanup failed.
    assert caught.pop("Fail") == {failed}
    # A release goes on without a classification head.
    caught.pop("TrainHead", None)
    states = {name: state for name, state in states.items() if name != "TrainHead: outcome"}
    stages = {name: following for name, following in caught.items() if following}
    assert set().union(*stages.values()) == {"Fail: error"}
    outcomes = [state["Default"] for state in states.values() if "Default" in state]
    assert set(outcomes) == {"Fail: outcome"}
    # The outcomes of shards go to the next stage.
    assert len(outcomes) == len(stages) - 1
    assert states["Fail: error"]["Next"] == states["Fail: outcome"]["Next"] == "Fail"


@pytest.mark.parametrize(("name", "message"), [("live", "$.stage.message"), ("failed", "$.reason")])
def test_mail_is_text_with_line_breaks_and_all_others_get_json(
    assembly: Assembly, name: str, message: str
) -> None:
    states = assembly.definition(machine(assembly))["States"]
    notice, notify = states[f"Notice: {name}"], states[f"Notify: {name}"]
    assert notice["Next"] == f"Notify: {name}"
    assert notice["ResultPath"] == "$.notice"
    assert notice["Parameters"] == {
        "release.$": "$.release",
        "message.$": message,
        "execution.$": "$$.Execution.Id",
    }
    sent = notify["Parameters"]
    assert sent["MessageStructure"] == "json"
    assert sent["Message"] == {
        "default.$": "States.JsonToString($.notice)",
        "email.$": "States.Format('{}\n\nRelease: {}\nExecution: {}', $.notice.message, $.notice.release, "
        "$.notice.execution)",
    }


def test_every_state_is_reached_and_every_path_ends(assembly: Assembly) -> None:
    definition = assembly.definition(machine(assembly))
    states: Mapping[str, Any] = definition["States"]
    reached, ahead = set[str](), [definition["StartAt"]]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += followers(states[name])
    assert reached == set(states)
    ends = {name for name, state in states.items() if not list(followers(state))}
    assert {states[name]["Type"] for name in ends} == {"Succeed", "Fail"}


def test_questions_are_asked_shard_by_shard_in_the_executions_own_folder(assembly: Assembly) -> None:
    asked = assembly.definition(machine(assembly))["States"]["AskModels: each shard"]
    folder = f"releases/{assembly.settings.owner}/{{}}/questions/"
    assert asked["ItemReader"]["Parameters"]["Prefix.$"] == f"States.Format('{folder}', $$.Execution.Name)"
    assert asked["MaxConcurrency"] == assembly.settings.evaluation.concurrency
    child = asked["ItemProcessor"]["States"]["AskModels"]
    given = {"shard.$": "$.shard", "release.$": "$.release", "since.$": "$.begun.at"}
    assert child["Parameters"] == given


def test_throughput_is_bought_last_and_only_where_configured(assembly: Assembly) -> None:
    """It is billed by the hour from then on, so only a release that passed gate and rollout gets it."""
    definition = assembly.definition(machine(assembly))
    states, way = definition["States"], [definition["StartAt"]]
    while way[-1] != "RetireOld":
        if way[-1].endswith(": begin"):
            way[-1] = states[way[-1]]["Next"]
        if states[way[-1]]["Type"] == "Map":
            way.append(states[way[-1]]["Next"])
            continue
        outcome = states[f"{way[-1]}: outcome"]
        way += [choice["Next"] for choice in outcome["Choices"] if choice["StringEquals"] == "done"]
    provisioned = assembly.settings.endpoint.kind == "provisioned"
    assert way == [
        "WatchJob",
        "DeployCandidate",
        "PrepareEvaluation",
        "AskModels: each shard",
        *([] if assembly.settings.head.is_off else ["TrainHead"]),
        *(["GradeAnswers"] if assembly.settings.evaluation.judge else []),
        "ScoreAndGate",
        "RollOut",
        *(["ServeFromThroughput"] if provisioned else []),
        "RetireOld",
    ]
    assert assembly.resources("Custom::BedrockProvisionedThroughput") == []


def test_release_takes_its_model_from_the_stacks_own_job_by_a_literal(assembly: Assembly) -> None:
    """The names of later attempts at the job begin with it."""
    properties = assembly.one("Custom::BedrockRelease").properties
    assert properties["Source"] == assembly.identity.job_name
    assert properties["Digest"] == assembly.identity.digest


def test_jobs_are_neither_stopped_nor_made_by_the_release_unless_the_settings_say_so(
    assembly: Assembly,
) -> None:
    release = assembly.settings.release
    statements = assembly.role_statements(assembly.one("AWS::IAM::Role", "ReleaseCandidateRole"))
    actions = {action for statement in statements for action in statement.actions}
    assert ("bedrock:StopModelCustomizationJob" in actions) == (
        release.stop_stalled or release.retry_internal_errors > 0
    )
    makes = {"bedrock:CreateModelCustomizationJob", "iam:PassRole"}
    assert actions & makes == (makes if release.retry_internal_errors else set())


def test_sweeper_comes_every_hour_and_when_an_execution_ends_by_itself(assembly: Assembly) -> None:
    hourly = assembly.one("AWS::Events::Rule", "ReleaseSweepHourly").properties
    ended = assembly.one("AWS::Events::Rule", "ReleaseSweepOnFailure").properties
    assert hourly["ScheduleExpression"] == "rate(1 hour)"
    assert assembly.plain(ended["EventPattern"]) == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": ["<ReleaseStateMachine>"],
            "status": ["FAILED", "TIMED_OUT", "ABORTED"],
        },
    }
    for rule in (hourly, ended):
        assert rule["State"] == "ENABLED"
        assert [target["Arn"] for target in assembly.plain(rule["Targets"])] == ["<ReleaseSweep.Arn>"]


def test_an_undelivered_event_is_kept_for_two_weeks(assembly: Assembly) -> None:
    """EventBridge gives up on an event after its retries, and Lambda after three failures of the function."""
    queue = assembly.one("AWS::SQS::Queue").properties
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}
    taken = set()
    for rule in assembly.resources("AWS::Events::Rule"):
        (target,) = assembly.plain(rule.properties["Targets"])
        assert target["DeadLetterConfig"] == {"Arn": "<ReleaseUndelivered.Arn>"}
        taken.add(target["Arn"])
    functions = assembly.resources("AWS::Lambda::Function")
    queued = {
        f"<{function.name}.Arn>"
        for function in functions
        if assembly.plain(function.properties.get("DeadLetterConfig"))
        == {"TargetArn": "<ReleaseUndelivered.Arn>"}
    }
    assert queued == taken


def test_only_our_own_rules_and_topic_may_write_to_the_queue_and_only_by_tls(assembly: Assembly) -> None:
    statements = assembly.statements(assembly.one("AWS::SQS::QueuePolicy").properties["PolicyDocument"])
    allowed = [statement for statement in statements if statement.effect == "Allow"]
    sources = {}
    for statement in allowed:
        assert statement.actions == {"sqs:SendMessage"}
        (source,) = statement.conditions["ArnEquals"].values()
        sources[source] = statement.principal["Service"]
    rules = {f"<{rule.name}.Arn>": "events.amazonaws.com" for rule in assembly.resources("AWS::Events::Rule")}
    mailed = {"<Notifications>": "sns.amazonaws.com"} if assembly.settings.alarms.emails else {}
    assert sources == rules | mailed
    (denied,) = [statement for statement in statements if statement.effect == "Deny"]
    assert denied.conditions == {"Bool": {"aws:SecureTransport": "false"}}


def test_every_rule_may_call_its_function(assembly: Assembly) -> None:
    called = {
        (rule.name, target["Arn"])
        for rule in assembly.resources("AWS::Events::Rule")
        for target in assembly.plain(rule.properties["Targets"])
    }
    allowed = {
        (permission["SourceArn"].strip("<>").removesuffix(".Arn"), permission["FunctionName"])
        for resource in assembly.resources("AWS::Lambda::Permission")
        if (permission := assembly.plain(resource.properties))["Principal"] == "events.amazonaws.com"
    }
    assert allowed == called


def test_release_is_ended_before_anything_that_it_needs_for_that_goes(assembly: Assembly) -> None:
    """CloudFormation deletes in the reverse order of DependsOn."""
    needed = {
        resource.logical_id
        for resource in assembly.resources(
            "AWS::StepFunctions::StateMachine", "AWS::Events::Rule", "AWS::IAM::Policy", stack="release"
        )
        if resource.name.startswith(
            ("ReleaseStateMachine", "ReleaseSweepHourly", "ReleaseSweepOnFailure", "ReleaseSweeperRole")
        )
    }
    assert needed <= set(assembly.one("Custom::BedrockRelease").raw["DependsOn"])


def test_windows_of_a_wait_follow_one_another_each_with_a_handle_of_its_own(assembly: Assembly) -> None:
    conditions = assembly.resources("AWS::CloudFormation::WaitCondition")
    handles = [condition.properties["Handle"]["Ref"] for condition in conditions]
    seconds = [int(condition.properties["Timeout"]) for condition in conditions]
    assert sum(seconds) == assembly.settings.release.wait_hours * 3600
    assert all(length <= 43_200 for length in seconds)
    assert len(set(handles)) == len(handles)
    for before, handle in zip(conditions, handles[1:], strict=False):
        later = assembly.templates["release"]["Resources"][handle]
        assert before.logical_id in later["DependsOn"]


def test_windows_are_looked_at_before_they_run_out(assembly: Assembly) -> None:
    for rule in assembly.resources("AWS::Events::Rule"):
        if rule.name.startswith("Wait"):
            assert rule.properties["ScheduleExpression"] == "rate(10 minutes)"
            tick = assembly.one("AWS::Lambda::Function", "WaitTick").properties["Environment"]["Variables"]
            assert int(tick["MARGIN_SECONDS"]) == 1500


def test_environments_have_no_window_one_and_several(assemblies: Mapping[str, Assembly]) -> None:
    counts = {len(each.resources("AWS::CloudFormation::WaitCondition")) for each in assemblies.values()}
    assert counts == {0, 1, 3}


def granted(assembly: Assembly, role: str) -> dict[str, list[Statement]]:
    """Return a role's statements by action, for evaluation jobs and what they need."""
    found: dict[str, list[Statement]] = {}
    for statement in assembly.role_statements(assembly.one("AWS::IAM::Role", role)):
        for action in statement.actions:
            found.setdefault(action, []).append(statement)
    return found


def test_only_the_grading_function_makes_evaluation_jobs_and_tags_them(
    assemblies: Mapping[str, Assembly],
) -> None:
    assembly = assemblies["judge"]
    makers = {
        role.name
        for role in assembly.resources("AWS::IAM::Role", stack="release")
        for statement in assembly.role_statements(role)
        if statement.actions & {"bedrock:CreateEvaluationJob", "iam:PassRole"}
    }
    assert makers == {"ReleaseGradeAnswersRole"}
    owner = {"aws:RequestTag/distilled-router:owner": assembly.settings.owner}
    may = granted(assembly, "ReleaseGradeAnswersRole")
    for action in ("bedrock:CreateEvaluationJob", "bedrock:TagResource"):
        assert all(statement.conditions["StringEquals"] == owner for statement in may[action])
    account = assembly.settings.account
    made = {resource for statement in may["bedrock:CreateEvaluationJob"] for resource in statement.resources}
    assert made == {
        f"arn:aws:bedrock:us-east-1:{account}:evaluation-job/*",
        f"arn:aws:bedrock:us-east-1:{account}:inference-profile/us.amazon.nova-pro-v1:0",
        "arn:aws:bedrock:us-*::foundation-model/amazon.nova-pro-v1:0",
    }
    (passed,) = may["iam:PassRole"]
    assert passed.resources == {"<ReleaseJudgeRole.Arn>"}
    assert passed.conditions == {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}


def test_roles_that_end_releases_stop_only_evaluation_jobs_of_the_owner(
    assemblies: Mapping[str, Assembly],
) -> None:
    assembly = assemblies["judge"]
    owned = {"aws:ResourceTag/distilled-router:owner": assembly.settings.owner}
    for role in ("ReleaseGradeAnswersRole", "ReleaseSweeperRole", "ReleaseReleaseRole"):
        may = granted(assembly, role)
        (stop,) = may["bedrock:StopEvaluationJob"]
        assert stop.resources == {f"arn:aws:bedrock:us-east-1:{assembly.settings.account}:evaluation-job/*"}
        assert stop.conditions == {"StringEquals": owned}
        (found,) = may["bedrock:ListEvaluationJobs"]
        assert found.resources == {"*"}


def test_bedrock_assumes_the_judges_role_for_evaluation_jobs_of_this_account(
    assemblies: Mapping[str, Assembly],
) -> None:
    assembly = assemblies["judge"]
    role, account = assembly.one("AWS::IAM::Role", "ReleaseJudgeRole"), assembly.settings.account
    (trust,) = assembly.statements(role.properties["AssumeRolePolicyDocument"])
    assert trust.principal == {"Service": "bedrock.amazonaws.com"}
    assert trust.conditions == {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:aws:bedrock:us-east-1:{account}:evaluation-job/*"},
    }
    may = granted(assembly, "ReleaseJudgeRole")
    folder = f"<Data.Arn>/releases/{assembly.settings.owner}/*/judge/*"
    for action in ("s3:GetObject", "s3:PutObject"):
        assert [statement.resources for statement in may[action]] == [{folder}]
    invoked = {resource for statement in may["bedrock:InvokeModel"] for resource in statement.resources}
    assert invoked == {
        f"arn:aws:bedrock:us-east-1:{account}:inference-profile/us.amazon.nova-pro-v1:0",
        "arn:aws:bedrock:us-*::foundation-model/amazon.nova-pro-v1:0",
    }


def test_without_a_judge_nothing_in_the_template_is_of_one(assembly: Assembly) -> None:
    text, judge = json.dumps(assembly.templates["release"]), assembly.settings.evaluation.judge
    # Jobs of a judge that was removed from the settings are still found and stopped.
    assert "bedrock:StopEvaluationJob" in text
    assert ("CreateEvaluationJob" in text) == (judge is not None)
    assert set(re.findall(r'"JUDGE": "(.*?)"', text)) <= {judge or ""}
    assert ("minimum_judge_score" in text) == (assembly.settings.gate.minimum_judge_score is not None)


def test_judge_is_a_property_of_the_release_so_that_another_one_tries_it_again(assembly: Assembly) -> None:
    properties = assembly.one("Custom::BedrockRelease").properties
    assert properties.get("Judge") == assembly.settings.evaluation.judge
