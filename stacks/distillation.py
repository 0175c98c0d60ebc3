"""Stack 2, distillation: the data set, the labelling of raw queries, and the customization job."""

from __future__ import annotations

from dataclasses import replace

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.dataset import Dataset, DatasetFile, DatasetFiles, InvocationLogs, QueriesFolder
from cdk_distilled_router.distillation_job import DistillationJob, EarlierName, JobOptions
from cdk_distilled_router.job_inputs import JobData
from cdk_distilled_router.labelling import Labelling, LabellingPlan, LabellingSources
from distilled_router.cost.estimate import Spec
from distilled_router.links import inside
from stacks import costs
from stacks.identity import Identity
from stacks.settings import PROJECT, Settings, is_folder, is_s3, split_s3_uri


class DistillationStack(cdk.Stack):
    """Attributes:
    holdout_key: key of the published hold-out set in the data bucket.
    job: the customization job, from which a release gets its model.
    labelling: labels raw queries and creates the job; None if the labels are given.
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
        """Declare data set and job with the names in `identity`."""
        super().__init__(
            scope,
            construct_id,
            env=env,
            synthesizer=cdk.DefaultStackSynthesizer(qualifier=settings.bootstrap_qualifier),
            description="Distilled router: data set and job",
        )
        self._settings, self._hosting, self._identity = settings, hosting, identity
        self._bucket, self._key = bucket, key
        self._earlier = self._earlier_name()
        self._cost = replace(costs.spec(settings), job=identity.job_name)
        if self._earlier:
            self._cost = replace(self._cost, earlier_job=self._earlier.job_name, keep=self._earlier.keep)
        self.labelling: Labelling | None = None
        if settings.dataset.is_curated:
            self._label()
        else:
            self._learn_from_rows()
        cdk.CfnOutput(self, "JobName", value=identity.job_name)
        cdk.CfnOutput(self, "Digest", value=identity.digest)

    def _learn_from_rows(self) -> None:
        """Train on rows that have labels."""
        dataset = self._dataset(self._file("training"), self._cost)
        self.job = self._job(dataset.job_data)
        # The job costs money, so the data set must be valid first.
        self.job.resource.node.add_dependency(dataset.resource)

    def _label(self) -> None:
        """Label raw queries, or take logged labels; the labelling then creates the job."""
        settings, identity = self._settings, self._identity
        plan = LabellingPlan(
            owner=settings.owner,
            labels=identity.labels_digest,
            dataset=identity.dataset_digest,
            props=settings.labelling,
            gate=settings.gate,
        )
        # The labelling has a limit of its own.
        holdout = self._dataset(None, None) if settings.dataset.holdout else None
        self.job = self._job(
            JobData(
                training_key=plan.training_key,
                validators=plan.validation_keys,
                made_later=True,
                holdout_key=holdout.holdout_key if holdout else None,
                holdout_sha256=holdout.holdout_sha256 if holdout else None,
            )
        )
        self.labelling = Labelling(
            self,
            "Labelling",
            job=self.job,
            sources=LabellingSources(
                queries=self._queries(),
                holdout=holdout,
                source_key=settings.dataset.source_key,
            ),
            plan=plan,
            cost=self._cost,
            attempt=settings.release.attempt,
            retention=settings.retention,
            hosting=self._hosting,
        )
        self.holdout_key = holdout.holdout_key if holdout else plan.holdout_key

    def _dataset(self, training: DatasetFile | None, cost: Spec | None) -> Dataset:
        settings = self._settings
        dataset = Dataset(
            self,
            "Dataset",
            owner=settings.owner,
            bucket=self._bucket,
            files=DatasetFiles(
                digest=self._identity.dataset_digest,
                holdout_digest=self._identity.holdout_digest,
                holdout=self._file("holdout"),
                training=training,
                source_key=settings.dataset.source_key,
                gate=settings.gate,
            ),
            props=settings.distillation,
            cost=cost,
            retention=settings.retention,
            hosting=self._hosting,
        )
        self.holdout_key = dataset.holdout_key
        return dataset

    def _job(self, data: JobData) -> DistillationJob:
        settings = self._settings
        return DistillationJob(
            self,
            "Job",
            owner=settings.owner,
            bucket=self._bucket,
            data=data,
            props=settings.distillation,
            digest=self._identity.digest,
            options=JobOptions(
                model_key=self._key if settings.encryption.model_key else None,
                vpc=self._hosting.vpc,
                retention=settings.retention,
                fallback_model=settings.router.base_model,
                earlier=self._earlier,
                tags=settings.tags,
            ),
            hosting=self._hosting,
        )

    def _earlier_name(self) -> EarlierName | None:
        """Return the job's name by earlier versions, which counted the hold-out set in the model's digest."""
        identity = self._identity
        if not identity.earlier_job_name:
            return None
        return EarlierName(
            job_name=identity.earlier_job_name,
            keep=f'To keep it, set dataset.holdout_in_digest = "{identity.holdout_setting}" in the '
            "environment's settings",
        )

    def _queries(self) -> DatasetFile | QueriesFolder | InvocationLogs:
        given = self._settings.dataset
        if given.source == "invocation_logs":
            # The account's logging configuration isn't changed.
            return InvocationLogs(
                uri=str(given.logs),
                use_answers=given.use_logged_answers,
                metadata=given.log_filters,
                query=given.log_query,
                first_day=given.logs_from,
                last_day=given.logs_until,
                account=given.source_account,
            )
        if is_s3(given.queries) and is_folder(str(given.queries)):
            bucket, prefix = split_s3_uri(str(given.queries))
            return QueriesFolder(bucket, prefix, str(given.queries_version), given.source_account)
        return self._file("queries")

    def _file(self, key: str) -> DatasetFile:
        """Return the location of a file: an asset for a local file, or an S3 object with its version."""
        location = str(getattr(self._settings.dataset, key))
        if is_s3(location):
            bucket, name = split_s3_uri(location)
            given = self._settings.dataset
            return DatasetFile(bucket, name, getattr(given, f"{key}_version"), given.source_account)
        asset = assets.Asset(self, key.title(), path=str(inside(PROJECT, location)))
        return DatasetFile.from_asset(asset)
