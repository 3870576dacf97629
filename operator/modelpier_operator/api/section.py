"""What the sections of a spec are made of: their base, and strings that several of them share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from modelpier_operator.api.rules import Rule

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
"""The name of an object in the same namespace."""
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
Cidr = Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:]{2,45}/(0|[1-9][0-9]{0,2})$", max_length=49)]
"""A range of addresses; the rules of `IPBlock` say more."""
SNAPSHOT = "a snapshot"
"""Context of a validation: no `RULES`, for one that came later must not undo a revision."""


def _tell_rules(schema: dict[str, Any], section: type[BaseModel]) -> None:
    if issubclass(section, Section) and section.RULES:
        schema["x-rules"] = section.RULES


class Section(BaseModel):
    """One object of the spec: unknown fields are refused, `RULES` hold between its fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra=_tell_rules,
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _hold_rules(self, info: ValidationInfo) -> Self:
        for rule in () if info.context is SNAPSHOT else self.RULES:
            if not rule.holds(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message, "field": rule.field})
        return self
