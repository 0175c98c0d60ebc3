"""Records of a data set as pydantic models: two forms to compare the data set rules with."""

from typing import Annotated, Literal, NotRequired, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator, with_config

# In the fastest form that we know: no rule needs Python. The rules are those of AWS's validator for
# distillation (amazon-bedrock-samples, model_distillation/dataset-validation).

_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class _OnlyText(TypedDict):
    text: str


type _One = Annotated[list[_OnlyText], Field(min_length=1, max_length=1)]


@with_config(_STRICT)
class _User(TypedDict):
    role: Literal["user"]
    content: _One


@with_config(_STRICT)
class _Assistant(TypedDict):
    role: Literal["assistant"]
    content: _One


@with_config(_STRICT)
class CompiledRecord(TypedDict):
    """A record with a query, and perhaps an answer."""

    schemaVersion: Literal["bedrock-conversation-2024"]
    system: NotRequired[_One]
    messages: tuple[_User] | tuple[_User, _Assistant]


# In the form of AWS's validator for Nova (amazon-bedrock-samples,
# bedrock-fine-tuning/nova/understanding/dataset_validation), which has its rules in Python. Those on images
# and videos are left out.


class _Text(BaseModel):
    text: str | None = None

    @model_validator(mode="after")
    def _is_filled(self) -> Self:
        assert self.text is not None
        return self


class _Message(BaseModel):
    role: str
    content: list[_Text]

    @field_validator("role")
    @classmethod
    def _check_role(cls, role: str) -> str:
        assert role.lower() in {"user", "assistant"}
        return role

    @field_validator("content")
    @classmethod
    def _check_content(cls, content: list[_Text]) -> list[_Text]:
        assert sum(len(each.text) for each in content if each.text is not None)
        return content


class Record(BaseModel):
    """A record with a query and an answer."""

    schemaVersion: str | None = None  # noqa: N815 - Bedrock's own
    system: list[_Text] | None = None
    messages: list[_Message]

    @field_validator("messages")
    @classmethod
    def _check_order(cls, messages: list[_Message]) -> list[_Message]:
        assert messages
        assert len(messages) % 2 == 0
        for number, message in enumerate(messages):
            assert message.role == ("assistant" if number % 2 else "user")
        return messages
