from __future__ import annotations

import re

import pytest

import egm.errors
from egm.errors import BackendError, EgmError, RequestError

CHILDREN = {
    value
    for value in vars(egm.errors).values()
    if isinstance(value, type) and issubclass(value, EgmError) and value is not EgmError
}


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = re.findall(r"^ *[├└]── (\w+)", egm.errors.__doc__ or "", re.M)
    assert sorted(drawn) == sorted(child.__name__ for child in CHILDREN)
    assert {child for child in CHILDREN if child.__bases__[0] is not EgmError} == {RequestError}
    assert RequestError.__bases__ == (BackendError,)


@pytest.mark.parametrize("child", sorted(CHILDREN, key=lambda child: child.__name__))
def test_each_can_be_caught_as_egm_error_and_as_the_builtin_it_resembles(child: type[EgmError]) -> None:
    others = {"BackendError": RuntimeError, "RequestError": RuntimeError, "MissingExtraError": ImportError}
    assert issubclass(child, others.get(child.__name__, ValueError))
    with pytest.raises(EgmError, match="what was wrong"):
        raise child("what was wrong")
