"""Construct Release: takes a model into production, in a workflow that the deployment starts."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.ownership import claimant
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.common.tables import items_table
from cdk_distilled_router.release.context import (
    ReleaseContext,
    ReleaseProps,
    ReleaseSource,
    ReleaseStores,
)
from cdk_distilled_router.release.functions import ReleaseFunctions
from cdk_distilled_router.release.machine import ReleaseMachine
from cdk_distilled_router.release.reference import HeadSource
from cdk_distilled_router.release.stores import releases_topic, undelivered_queue
from distilled_router.bedrock.naming import holdout_digest
from distilled_router.release.route import TIME_TO_LIVE

DEFAULT_PROPS, OWN_STORES = ReleaseProps(), ReleaseStores()


class Release(Construct):
    """Waits for a job's model, evaluates it, rolls it out step by step, and retires the old release.

    A new digest starts a new release; the live release stays until the new one has passed. Another hold-out
    set is another evaluation of the same release; a live one stays live whatever comes out. A change of gate,
    rollout, judge, `timing.retry_internal_errors` or `timing.attempt` starts a failed release again. The
    deployment doesn't wait for the release, except with a `ReleaseWait`.

    Example::

        release = Release(
            self, "Release", owner="search", job=job, bucket=bucket, holdout_key="rows/holdout.jsonl"
        )

    Attributes:
        owner: owner of the resources that releases create.
        digest: digest of the declared release.
        holdout: 8 hex digits of the key of the hold-out set.
        student: base model of the job.
        table: the releases table with the route.
        topic: receives a message at the end of each release.
        undelivered: queue that keeps undelivered events and messages for two weeks: events for the sweeper,
            and messages of topic subscriptions that name it as their dead-letter queue.
        key: encrypts bucket, table and topic; None for AWS's own keys.
        model_key: the key if it also encrypts the models; otherwise None.
        heads: where a router finds classification heads; None if none is trained.
        machine: the state machine.
        resource: the custom resource, with `Digest` and `ReleaseName`.

    Cost:
        For each release: state transitions, a short model call for each hold-out query to candidate, live
        release and base model, the rollout's probes, and a judge's tokens. For each month: the storage of the
        live model and of `rollout.keep_releases` others. Deployments cost nothing while idle.

    Permissions:
        Each step has a role of its own for what it does; all are limited to the owner's resources. No step
        but the rollout's can write the route.

    Delete:
        Releases in progress are stopped, the route is emptied, and all that the releases created is deleted:
        deployments, evaluation jobs, throughput, models and reports. `props.retention` keeps models, reports
        (`data`) or throughput. A model stays while its DistillationJob claims it; an adopted model always
        stays. The routers answer with their base model.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        job: ReleaseSource,
        bucket: s3.IBucket,
        holdout_key: str,
        props: ReleaseProps = DEFAULT_PROPS,
        stores: ReleaseStores = OWN_STORES,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the release of a job's model, or of a model.

        Args:
            owner: owner of the resources that releases create; also the resource's physical id.
            job: source of the model; created before the release, and deleted after it.
            bucket: has the hold-out set, and receives the reports under `releases/<owner>/`.
            holdout_key: key of the hold-out set in the bucket. Another set needs another key.
            props: gate, evaluation, rollout, timing, retention and throughput.
            stores: table, topic and key that it shares with other constructs.
            hosting: VPC, key and log retention of the functions.

        Raises:
            ValueError: the properties don't fit together.
        """
        super().__init__(scope, construct_id)
        self.holdout = holdout_digest(holdout_key)
        self.owner, self.digest, self.key = owner, job.digest, stores.key or bucket.encryption_key
        self.table = stores.table or items_table(self, "Table", self.key, time_to_live=TIME_TO_LIVE)
        self.topic = stores.topic or releases_topic(self, "Topic", self.key)
        self.undelivered = undelivered_queue(self, "Undelivered")
        self._context = ReleaseContext(
            scope=self,
            owner=owner,
            job=job,
            bucket=bucket,
            holdout_key=holdout_key,
            props=props,
            table=self.table,
            topic=self.topic,
            key=self.key,
            undelivered=self.undelivered,
            hosting=hosting,
        )
        _check(self._context)
        self.student = job.student
        self.model_key = self.key if job.has_model_key else None
        self.heads = None if props.head.is_off else HeadSource(bucket=bucket, key=self.key, props=props.head)
        if props.throughput:
            props.throughput.serve_releases_of(claimant(self))
        functions = ReleaseFunctions(self._context)
        may.tag_roles(self, owner)
        self.machine = ReleaseMachine(
            self, "StateMachine", context=self._context, functions=functions
        ).machine
        self.resource = self._resource(functions)
        self._delete_first(functions)

    def _delete_first(self, functions: ReleaseFunctions) -> None:
        """Let CloudFormation delete the resource, whose Delete needs these, before them: in reverse order."""
        self.resource.node.add_dependency(self.machine, *functions.roles, *self._rules(functions))
        for before in (self._context.props.throughput, self._context.job):
            if isinstance(before, Construct):
                self.resource.node.add_dependency(before)

    def _resource(self, functions: ReleaseFunctions) -> cdk.CustomResource:
        self.machine.grant_start_execution(functions.resource_role)
        provider = ResourceProvider(
            self,
            "Provider",
            on_event=functions.on_event,
            is_complete=functions.is_complete,
            hosting=self._context.hosting,
        )
        return cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockRelease",
            service_token=provider.service_token,
            properties=self._properties(),
        )

    def _properties(self) -> dict[str, object]:
        """Return the custom resource's properties; a change of one sends it an Update."""
        context, props = self._context, self._context.props
        timing, retention = props.timing, props.retention
        price = props.throughput.hourly_price_usd if props.throughput else None
        return {
            "Owner": self.owner,
            "StateMachineArn": self.machine.state_machine_arn,
            "Bucket": context.bucket.bucket_name,
            "Digest": self.digest,
            "Source": context.job.source,
            # Another hold-out set is another evaluation of the same model.
            "HoldoutKey": context.holdout_key,
            "Endpoint": props.throughput.name if props.throughput else "on_demand",
            **({"HourlyPriceUsd": price} if price else {}),
            # A change of a property that can fail a release starts a failed release again.
            "Gate": json.dumps(props.gate.to_function(), sort_keys=True),
            "Rollout": json.dumps(props.rollout.to_function(), sort_keys=True),
            "RetryInternalErrors": timing.retry_internal_errors,
            # Left out by default, so that an upgrade of this package doesn't start a failed release again.
            **({"Attempt": timing.attempt} if timing.attempt > 1 else {}),
            **({"Judge": props.judge} if props.judge else {}),
            "RetainModels": retention.models == "retain",
            "RetainReports": retention.data == "retain",
            "RetainThroughput": retention.throughput == "retain",
        }

    def _rules(self, functions: ReleaseFunctions) -> list[events.Rule]:
        """Return the rules that start the sweeper: hourly, and when an execution fails.

        The hourly rule is needed because status events are delivered on a best-effort basis.
        """
        hourly = events.Rule(self, "SweepHourly", schedule=events.Schedule.rate(cdk.Duration.hours(1)))
        on_failure = events.Rule(
            self,
            "SweepOnFailure",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={
                    "stateMachineArn": [self.machine.state_machine_arn],
                    "status": ["FAILED", "TIMED_OUT", "ABORTED"],
                },
            ),
        )
        for rule in (hourly, on_failure):
            rule.add_target(targets.LambdaFunction(functions.sweep, dead_letter_queue=self.undelivered))
        return [hourly, on_failure]


def _check(context: ReleaseContext) -> None:
    """Raise ValueError for properties that don't fit together."""
    name, job, props = f"Release {context.owner}", context.job, context.props
    if job.has_model_key and context.key is None:
        raise ValueError(f"{name}: the model has a customer managed key; give that key as stores.key.")
    if props.throughput and props.throughput.resource:
        raise ValueError(
            f"{name}: the deployment buys throughput {props.throughput.name}; give it this release's table "
            "instead of model_arn, so that the release buys it."
        )
    if props.gate.minimum_judge_score is not None and not props.judge:
        raise ValueError(f"{name}: gate.minimum_judge_score needs evaluation.judge.")
    if props.gate.minimum_slice_accuracy and not props.evaluation.slice_queries:
        raise ValueError(f"{name}: gate.minimum_slice_accuracy needs evaluation.slice_queries above 0.")
    retries = props.timing.retry_internal_errors
    if retries and job.role is None:
        raise ValueError(
            f"{name}: retry_internal_errors = {retries}, but {job.source} is adopted. Only the job of a "
            "DistillationJob can be created again; allowed is 0."
        )
