"""Stack 2, distillation: the data set, checked, labelled where it is raw, and the job that learns from it."""

from __future__ import annotations

from dataclasses import fields

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.dataset import Dataset, DatasetFile, QueriesFolder
from cdk_distilled_router.distillation_job import DistillationJob
from cdk_distilled_router.job_inputs import InvocationLogs
from cdk_distilled_router.labelling import Labelling, LabellingPlan
from stacks import costs
from stacks.identity import Identity
from stacks.settings import PROJECT, Settings, is_folder, is_s3, split_s3_uri


class DistillationStack(cdk.Stack):
    """Attributes:
    holdout_key: where the hold-out set is published in the data bucket.
    job: the customization job, a release's source.
    labelling: what labels raw queries and has the job made; None where labels are given.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        hosting: Hosting,
        identity: Identity,
        bucket: s3.IBucket,
        key: kms.IKey,
        env: cdk.Environment,
    ) -> None:
        """Declare data set and job under the identity's names."""
        super().__init__(scope, construct_id, env=env, description="Distilled router: data set and job")
        self._settings, self._hosting, self._identity = settings, hosting, identity
        self._bucket, self._key = bucket, key
        self.labelling: Labelling | None = None
        match settings.dataset.labels, settings.dataset.source:
            case "teacher", _:
                self._label()
            case _, "invocation_logs":
                self._learn_from_logs()
            case _:
                self._learn_from_rows()
        cdk.CfnOutput(self, "JobName", value=identity.job_name)
        cdk.CfnOutput(self, "Digest", value=identity.digest)

    def _learn_from_rows(self) -> None:
        """Rows that are there already."""
        dataset = self._dataset(self._file("training"))
        self.job = self._job(training_key=dataset.training_key)
        # Nothing is paid for before the data set has passed.
        self.job.resource.node.add_dependency(dataset.resource)

    def _learn_from_logs(self) -> None:
        """What Bedrock has logged of other requests. The account's logging is not ours to change."""
        given = self._settings.dataset
        logs = InvocationLogs(
            uri=str(given.logs),
            use_prompt_response=given.use_logged_answers,
            metadata=given.log_filters,
        )
        dataset = self._dataset(None)
        self.job = self._job(invocation_logs=logs)
        self.job.resource.node.add_dependency(dataset.resource)

    def _label(self) -> None:
        """Raw queries: the job is made by their labelling, once the data set is there."""
        settings, given = self._settings, self._settings.dataset
        plan = self._plan()
        self.job = self._job(training_key=plan.training_key, validators=plan.validation_keys)
        self.labelling = Labelling(
            self,
            "Labelling",
            owner=settings.owner,
            bucket=self._bucket,
            job=self.job,
            queries=self._queries(),
            plan=plan,
            holdout=self._file("holdout") if given.holdout else None,
            key=self._key,
            source_key=given.source_key,
            cost=costs.spec(settings),
            queries_per_shard=settings.labelling.queries_per_shard,
            maximum_cost_usd=settings.distillation.maximum_cost_usd,
            attempt=settings.release.attempt,
            retain=settings.retention.data == "retain",
            tags=settings.tags,
            vpc=self._hosting.vpc,
            hosting=self._hosting,
        )
        self.holdout_key = plan.holdout_key

    def _plan(self) -> LabellingPlan:
        """The settings of the labelling, as far as they decide rows."""
        labelling, identity = self._settings.labelling, self._identity
        named = {field.name for field in fields(LabellingPlan)} & set(type(labelling).model_fields)
        return LabellingPlan(
            labels=identity.labels_digest,
            dataset=identity.dataset_digest,
            method=self._settings.distillation.method,
            teacher=self._settings.distillation.teacher,
            **{name: getattr(labelling, name) for name in named},
        )

    def _dataset(self, training: DatasetFile | None) -> Dataset:
        settings = self._settings
        dataset = Dataset(
            self,
            "Dataset",
            owner=settings.owner,
            bucket=self._bucket,
            key=self._key,
            training=training,
            holdout=self._file("holdout"),
            source_key=settings.dataset.source_key,
            digest=self._identity.dataset_digest,
            method=settings.distillation.method,
            use_logged_answers=settings.dataset.use_logged_answers,
            cost=costs.spec(settings),
            maximum_cost_usd=settings.distillation.maximum_cost_usd,
            retain=settings.retention.data == "retain",
            hosting=self._hosting,
        )
        self.holdout_key = dataset.holdout_key
        return dataset

    def _job(
        self,
        *,
        training_key: str | None = None,
        invocation_logs: InvocationLogs | None = None,
        validators: tuple[str, ...] = (),
    ) -> DistillationJob:
        settings, spec = self._settings, self._settings.distillation
        return DistillationJob(
            self,
            "Job",
            owner=settings.owner,
            digest=self._identity.digest,
            bucket=self._bucket,
            key=self._key,
            training_key=training_key,
            invocation_logs=invocation_logs,
            validators=validators,
            student=spec.student,
            method=spec.method,
            teacher=spec.teacher if spec.method == "distillation" else None,
            max_response_length=spec.max_response_length,
            hyperparameters=spec.hyperparameters.to_api() if spec.hyperparameters else None,
            model_key=self._key if settings.encryption.model_key else None,
            vpc=self._hosting.vpc,
            made_later=settings.dataset.labels == "teacher",
            allow_legacy=spec.allow_legacy,
            retain_model=settings.retention.models == "retain",
            retain_output=settings.retention.data == "retain",
            tags=settings.tags,
            hosting=self._hosting,
        )

    def _queries(self) -> DatasetFile | QueriesFolder:
        given = self._settings.dataset
        if is_s3(given.queries) and is_folder(str(given.queries)):
            bucket, prefix = split_s3_uri(str(given.queries))
            return QueriesFolder(bucket, prefix, str(given.queries_version))
        return self._file("queries")

    def _file(self, key: str) -> DatasetFile:
        """A local file travels as an asset; an S3 object is named with its version."""
        location = str(getattr(self._settings.dataset, key))
        if is_s3(location):
            bucket, name = split_s3_uri(location)
            return DatasetFile(bucket, name, getattr(self._settings.dataset, f"{key}_version"))
        asset = assets.Asset(self, key.title(), path=str(PROJECT / location))
        return DatasetFile(asset.s3_bucket_name, asset.s3_object_key)
