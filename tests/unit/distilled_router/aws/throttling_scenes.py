"""The scenes in which every entry point that calls Bedrock's control plane is throttled."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags, release_name, throughput_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.table import LIVE, RETIRED, ROLLING_OUT
from distilled_router.task.task import Task
from evaluation.attempt import attempt_folder, row
from evaluation.contenders import CANDIDATE
from evaluation.metrics import Answer, Question
from stacks.settings import PROJECT
from tests.unit import framework
from tests.unit.entry_points import JUDGE, MACHINE_TRIES, RULE_TRIES, SETTINGS, Play, nothing
from tests.unit.framework import MARKER, Response
from tests.unit.labelling.scenes import PLAN
from tests.unit.local.bedrock.scenes import HOUR, MINUTE
from tests.unit.release_world import OWNER, A, B, live_share
from tests.unit.resource_scenes import DIGEST, NAME, NEXT, job_properties
from tests.unit.resource_scenes import OWNER as JOBS_OWNER

THROUGHPUT, STAGE = "provisioned_throughput", "provisioned_throughput.serve_from_throughput"
WATCH = "candidate.watch_job"
RELEASE = Claimant(SETTINGS["STACK_ID"], SETTINGS["LOGICAL_ID"])


@dataclass(frozen=True)
class Scene:
    """What is done to an account.

    `ask` says whether it was done. Where it was not, its caller goes on once AWS answers again: it asks the
    same again, with the same end; or, where there is an `undo`, that leads back to the beginning. A `patient`
    scene is done even if three calls in a row are refused.
    """

    prepare: Callable[[Play], object]
    ask: Callable[[Play], bool]
    undo: Callable[[Play], bool] | None = None
    patient: bool = True


def told(response: Response) -> bool:
    """Whether CloudFormation's request succeeded. It must know the resource by our own id either way."""
    assert response.physical_id != MARKER, f"CloudFormation would forget it: {response.reason}"
    known = ("Too many requests", "Operation timed out")
    assert response.succeeded or any(text in response.reason for text in known), response.reason
    return response.succeeded


# The job's resource.

TAGS = {OWNER_TAG: JOBS_OWNER, DIGEST_TAG: DIGEST}
RETAGGED = job_properties(Tags={**TAGS, "cost": "7"})


def created(play: Play) -> bool:
    response = play.resource("distillation_job").send(framework.create(job_properties()))
    assert response.physical_id == NAME
    return told(response)


def trained(play: Play) -> None:
    assert created(play)
    play.world.advance(3 * HOUR)


def replaced(play: Play) -> bool:
    event = framework.update(NAME, job_properties(NEXT), job_properties())
    response = play.resource("distillation_job").send(event)
    play.memory["known"] = response.physical_id
    return told(response)


def both(play: Play) -> None:
    # Queued for ever, so that however long it takes they still run.
    play.world.server.fault("job_stalled", count=2)
    assert created(play)
    assert replaced(play)


def taken_back(play: Play) -> bool:
    """What CloudFormation does after a failed update: back to the old, and the new goes if it knows it."""
    jobs, known = play.resource("distillation_job"), play.memory.get("known", NAME)
    back = told(jobs.send(framework.update(known, job_properties(), job_properties(NEXT))))
    if known != NAME:
        back &= told(jobs.send(framework.delete(known, job_properties(NEXT))))
    play.world.advance(10 * MINUTE)
    return back


def retagged(play: Play) -> bool:
    event = framework.update(NAME, RETAGGED, job_properties())
    return told(play.resource("distillation_job").send(event))


def deleted(play: Play) -> bool:
    return told(play.resource("distillation_job").send(framework.delete(NAME, job_properties())))


# Provisioned throughput, bought by a deployment.


def units(play: Play, number: int = 1, digest: str = A, **changes: Any) -> dict[str, Any]:
    """The properties of throughput for a release's model."""
    return {
        "ProvisionedModelName": throughput_name(OWNER, number, None),
        "Owner": OWNER,
        "ModelArn": model_of(play, digest),
        "ModelUnits": str(number),
        "Tags": {"team": "search"},
        "RetainModels": "true",
        **changes,
    }


def model_of(play: Play, digest: str) -> str:
    model = play.world.bedrock.get_custom_model(modelIdentifier=f"{OWNER}-{digest}")
    return str(model["modelArn"])


def modelled(play: Play) -> None:
    play.world.train(A)
    play.world.train(B)
    play.memory["old"] = units(play)


def bought(play: Play) -> bool:
    return told(play.resource(THROUGHPUT).send(framework.create(play.memory["old"])))


def changed(play: Play, new: dict[str, Any]) -> bool:
    """An update of the throughput that was bought first."""
    old = play.memory["old"]
    response = play.resource(THROUGHPUT).send(framework.update(old["ProvisionedModelName"], new, old))
    play.memory |= {"new": new, "known": response.physical_id}
    return told(response)


def in_service(play: Play) -> None:
    modelled(play)
    assert bought(play)
    play.memory["moved"] = units(play, digest=B)
    play.memory["tagged"] = units(play, Tags={"cost": "7"})
    play.memory["more"] = units(play, 2)


def given_back(play: Play) -> bool:
    """A deployment is rolled back: a create's throughput goes."""
    old = play.memory["old"]
    return told(play.resource(THROUGHPUT).send(framework.delete(old["ProvisionedModelName"], old)))


def put_back(play: Play) -> bool:
    """A replacement is rolled back: to the old, and the new goes if CloudFormation knows it."""
    resource, old, new = play.resource(THROUGHPUT), play.memory["old"], play.memory["new"]
    known, name = play.memory["known"], old["ProvisionedModelName"]
    back = told(resource.send(framework.update(known, old, new)))
    if known != name:
        back &= told(resource.send(framework.delete(known, new)))
    return back


# The release's stages and the sweeper.


def waiting(play: Play) -> None:
    play.world.begin(A)
    play.world.start_job(A)


def failed(play: Play) -> None:
    """Bedrock failed the release's job by an error of its own."""
    play.world.begin(A)
    play.world.server.fault(
        "job_failed", message="Encountered an internal error when processing the request."
    )
    play.world.start_job(A)
    play.world.advance(HOUR)


def stalled(play: Play) -> None:
    """The release's job has waited for capacity for two days."""
    play.world.begin(A)
    play.world.server.fault("job_stalled")
    play.world.start_job(A)
    play.world.advance(49 * HOUR)


def ready(play: Play) -> None:
    model = play.world.train(A)
    play.world.begin(A, model_arn=model)


def made(play: Play, digest: str, state: str, **fields: Any) -> str:
    """A release with model and deployment in a state; the deployment's ARN."""
    world = play.world
    model = world.train(digest)
    arn = world.deploy(digest, model)
    world.begin(digest, model_arn=model, endpoint=arn, **fields)
    world.releases.update(digest, state=state)
    world.advance(MINUTE)
    return arn


def live(play: Play, digest: str = A) -> None:
    """A release that serves from its deployment."""
    play.world.settle(live_share(digest, made(play, digest, LIVE)))
    play.world.declare(digest)


def provisioned(play: Play) -> None:
    """A served from throughput, and B has taken over from it on demand."""
    live(play)
    assert play.stage(STAGE, A)
    play.world.releases.update(A, state=RETIRED)
    live(play, B)


def crowded(play: Play) -> None:
    """There is throughput of other model units that nothing is routed to."""
    live(play)
    idle(play, A, 2)


def idle(play: Play, digest: str, number: int = 1) -> None:
    """Throughput that nothing is routed to."""
    world = play.world
    world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=throughput_name(OWNER, number, None),
        modelId=model_of(play, digest),
        modelUnits=number,
        tags=bedrock_tags({OWNER_TAG: OWNER, **RELEASE.tag}),
    )
    world.advance(HOUR)


def replacing(play: Play) -> None:
    """A was replaced by B; its throughput is left from before, too."""
    made(play, A, RETIRED)
    live(play, B)
    idle(play, A)


def refused(play: Play) -> None:
    """B was refused, beside A which serves."""
    live(play)
    made(play, B, ROLLING_OUT)


def abandoned(play: Play) -> None:
    """B's execution was stopped by hand, and nobody came after it."""
    made(play, B, ROLLING_OUT)
    play.world.advance(HOUR)


# The judge.

SHARD = f"releases/{OWNER}/x/questions/00000.jsonl"


def answered(play: Play, digest: str = A) -> None:
    """A candidate whose answers are kept, all right, and none of an earlier play."""
    s3, labels = play.world.server.s3, Task.load().labels
    for bucket, key in [place for place in s3.objects if place[1].startswith("releases/")]:
        del s3.objects[bucket, key]
    release = play.world.begin(digest, endpoint="arn:endpoint")
    folder = attempt_folder(s3, "data", OWNER, release)
    candidate = {"name": CANDIDATE, "title": "candidate", "endpoint": "arn:endpoint", "model": ""}
    questions = [
        Question(
            f"q{place}-{label}", "holdout", f"{place} {label}", {**dict.fromkeys(labels, 0.0), label: 1.0}
        )
        for place in range(12)
        for label in labels
    ]
    count = len(questions)
    plan = {"life": release.life, "contenders": [candidate], "shards": ["00000"], "questions": count}
    folder.write("plan.json", plan)
    folder.write_rows("questions/00000.jsonl", map(asdict, questions))
    answers = [row(CANDIDATE, Answer(one.id, one.reference, "", 9.0, 9, 9)) for one in questions]
    folder.write_rows(f"answers/{release.life}/00000/000.jsonl", answers)


def judged(play: Play) -> bool:
    """All of a judgement; the questions are answered."""
    assert play.stage("evaluation.prepare_evaluation", A)
    assert play.until("evaluation.ask_models", {"release": A, "shard": SHARD})
    assert play.stage("evaluation.train_head", A)
    return play.stage("evaluation.grade_answers", A) and play.stage("evaluation.score_and_gate", A)


def being_judged(play: Play) -> None:
    """A's answers are being graded, for longer than any test."""
    answered(play)
    play.world.server.fault("evaluation_stalled")
    play.call("evaluation.grade_answers", {"release": A})


# The release's resource.


def declared(play: Play, digest: str) -> dict[str, Any]:
    return {
        "Owner": OWNER,
        "Digest": digest,
        "Source": release_name(OWNER, digest),
        "StateMachineArn": play.world.machine,
        "Bucket": play.world.bucket,
        "Endpoint": "on_demand",
        "RetryInternalErrors": "1",
        "RetainModels": "false",
        "RetainThroughput": "false",
        "RetainReports": "false",
        "Judge": JUDGE,
    }


def released(play: Play, digest: str = A) -> None:
    assert told(play.resource("release").send(framework.create(declared(play, digest))))


def superseded(play: Play) -> bool:
    event = framework.update(OWNER, declared(play, B), declared(play, A))
    response = play.resource("release").send(event)
    play.world.advance(HOUR / 2)
    return told(response)


def all_made(play: Play) -> None:
    released(play)
    made(play, A, LIVE)
    made(play, B, RETIRED)
    idle(play, B)


def ended(play: Play) -> bool:
    return told(play.resource("release").send(framework.delete(OWNER, declared(play, A))))


# Look-ups.


def there(play: Play) -> None:
    modelled(play)
    assert bought(play)
    state = play.world.server.state()
    play.memory["arns"] = [state[kind][0]["arn"] for kind in ("jobs", "models", "throughput")]


def looked_up(play: Play) -> bool:
    """A look-up that fails may be forgotten: it made nothing."""
    events = [framework.create({"Arn": arn}) for arn in play.memory["arns"]]
    return all(play.resource("existing").send(event).succeeded for event in events)


# The data set, whose resource asks what the owner's jobs may still cost.


def supplied(play: Play) -> None:
    """The files of the data set."""
    for name, most in (("training", 150), ("holdout", 110)):
        lines = (PROJECT / "data" / f"{name}.jsonl").read_bytes().splitlines(keepends=True)[:most]
        play.world.s3.put_object(Bucket=play.world.bucket, Key=f"in/{name}.jsonl", Body=b"".join(lines))


def published(play: Play) -> bool:
    """A data set that is refused may be forgotten: nothing was paid."""
    bucket = play.world.bucket
    properties = {
        "Bucket": bucket,
        "Digest": DIGEST,
        "Method": "distillation",
        "Training": {"Bucket": bucket, "Key": "in/training.jsonl"},
        "Holdout": {"Bucket": bucket, "Key": "in/holdout.jsonl"},
        "Retain": "false",
        "Cost": SETTINGS["COST"],
        "MaximumCostUsd": SETTINGS["MAXIMUM_COST_USD"],
        "MaximumCostDays": SETTINGS["MAXIMUM_COST_DAYS"],
    }
    return play.resource("dataset").send(framework.create(properties)).succeeded


# The labelling: its resource, its stages, and the job that is made from it.

LABELS = "f" * 16


def labelling(play: Play) -> dict[str, Any]:
    plan = replace(PLAN, owner=OWNER, digest=A, labels=LABELS, samples=1, minimum_agreement=0.5)
    return {
        "Bucket": "data",
        "StateMachineArn": play.world.machine,
        "JobName": release_name(OWNER, A),
        "Plan": json.dumps(asdict(plan)),
        "Queries": {"Bucket": "data", "Key": "raw/queries.txt"},
        "QueriesPerShard": "500",
        "Retain": "true",
    }


def raw(play: Play) -> None:
    """Raw queries, and nothing of an earlier labelling."""
    s3 = play.world.server.s3
    for bucket, key in [place for place in s3.objects if place[1].startswith("labels/")]:
        del s3.objects[bucket, key]
    s3.put_object(Bucket="data", Key="raw/queries.txt", Body=(PROJECT / "data" / "queries.txt").read_bytes())


def labelling_begun(play: Play) -> bool:
    event = framework.create(labelling(play), LogicalResourceId=SETTINGS["LOGICAL_ID"])
    return told(play.resource("labelling").send(event))


def begun(play: Play) -> None:
    raw(play)
    assert labelling_begun(play)


def of_labelling(play: Play, **more: Any) -> dict[str, Any]:
    """What the state machine tells its stages."""
    properties = labelling(play)
    execution = f"{properties['StateMachineArn'].replace(':stateMachine:', ':execution:')}:{A}-1"
    return {"plan": json.loads(properties["Plan"]), "execution": execution, **more}


def shard_labelled(play: Play) -> bool:
    return play.until(
        "labelling.label_queries", of_labelling(play, shard=f"labels/{OWNER}/{LABELS}/queries/00000.jsonl")
    )


def labelled(play: Play) -> None:
    begun(play)
    assert shard_labelled(play)


def under_way(play: Play) -> None:
    """A batch job runs for the labelling."""
    begun(play)
    play.call(
        "labelling.label_queries", of_labelling(play, shard=f"labels/{OWNER}/{LABELS}/queries/00000.jsonl")
    )


def made_from_labels(play: Play) -> bool:
    shards = [{"outcome": "done", "message": ""}]
    assert play.until("labelling.curate_dataset", of_labelling(play, shards=shards))
    rows = f"s3://data/labels/{OWNER}/{LABELS}/datasets/{PLAN.dataset}/training.jsonl"
    properties = job_properties(TrainingDataUri=rows, MadeLater="true")
    return play.until("distillation_job.create_job", of_labelling(play, properties=properties))


def labelling_ended(play: Play) -> bool:
    folder, of_steps = f"s3://data/labels/{OWNER}/{LABELS}/", {"LogicalResourceId": SETTINGS["LOGICAL_ID"]}
    event = framework.delete(folder, labelling(play), **of_steps)
    return told(play.resource("labelling").send(event))


SCENES = {
    "a data set is published": Scene(supplied, published, patient=False),
    "a labelling's cost is checked": Scene(begun, lambda p: p.until("labelling.check_cost", of_labelling(p))),
    "a labelling is begun": Scene(raw, labelling_begun),
    "a shard is labelled": Scene(begun, shard_labelled),
    "a job is made from labels": Scene(labelled, made_from_labels),
    "a labelling is ended": Scene(under_way, labelling_ended),
    "a job is made": Scene(nothing, created, undo=deleted),
    "a job is replaced": Scene(created, replaced, undo=taken_back),
    "a replacement is rolled back": Scene(both, taken_back),
    "a job's tags change": Scene(trained, retagged),
    "a running job is deleted": Scene(created, deleted),
    "a job and its model are deleted": Scene(trained, deleted),
    "throughput is bought": Scene(modelled, bought, undo=given_back),
    "throughput gets another model": Scene(
        in_service, lambda p: changed(p, p.memory["moved"]), patient=False
    ),
    "throughput's tags change": Scene(in_service, lambda p: changed(p, p.memory["tagged"]), patient=False),
    "throughput is replaced": Scene(
        in_service, lambda p: changed(p, p.memory["more"]), undo=put_back, patient=False
    ),
    "throughput is deleted": Scene(in_service, given_back, patient=False),
    "a release waits for its job": Scene(waiting, lambda p: p.stage(WATCH, A)),
    "a release makes its job again": Scene(failed, lambda p: p.stage(WATCH, A)),
    "a release stops its stalled job": Scene(stalled, lambda p: p.stage(WATCH, A, "failed")),
    "a release gets its deployment": Scene(ready, lambda p: p.stage("candidate.deploy_candidate", A)),
    "a release buys throughput": Scene(live, lambda p: p.stage(STAGE, A)),
    "a release buys throughput in place of other": Scene(crowded, lambda p: p.stage(STAGE, A)),
    "a release moves throughput": Scene(provisioned, lambda p: p.stage(STAGE, B)),
    "a release retires another": Scene(
        replacing, lambda p: p.task("sweeper.retire_old", {"release": B}, MACHINE_TRIES)
    ),
    "a release fails": Scene(
        refused,
        lambda p: p.task(
            "sweeper.fail",
            {"release": B, "reason": "no", "execution": p.world.execution(B, 1)},
            MACHINE_TRIES,
        ),
    ),
    "a judge grades a release": Scene(answered, judged),
    "a release fails while a judge grades": Scene(
        being_judged,
        lambda p: p.task(
            "sweeper.fail",
            {"release": A, "reason": "no", "execution": p.world.execution(A, 1)},
            MACHINE_TRIES,
        ),
    ),
    "all releases end while a judge grades": Scene(being_judged, ended),
    "the hourly sweep": Scene(abandoned, lambda p: p.task("sweeper.sweep", {}, RULE_TRIES), patient=False),
    "a release takes another's place": Scene(released, superseded),
    "all releases end": Scene(all_made, ended),
    "what others made is looked up": Scene(there, looked_up, patient=False),
}
