"""Whether somebody else traces a method that we watch: inside our wrapper, or only after the call."""

from __future__ import annotations

from typing import Any, Final

_MOST: Final = 256
_answers: dict[tuple[int, tuple[str, ...]], tuple[Any, bool]] = {}


def traced_by(method: Any, modules: tuple[str, ...]) -> bool:
    """Whether one of the wrappers around a method is of one of these modules (beginnings of their names)."""
    key = (id(method), modules)
    known = _answers.get(key)
    if known is not None and known[0] is method:
        return known[1]
    answer = any(origin.startswith(modules) for origin in _origins(method))
    if len(_answers) >= _MOST:
        _answers.clear()
    _answers[key] = (method, answer)  # holding the method keeps its id its own
    return answer


def _origins(method: Any) -> list[str]:
    """The modules of the wrappers around a method, the outermost first: wrapt's, and functions that wrap another."""
    found = []
    while hasattr(method, "__wrapped__"):
        wrapper = getattr(method, "_self_wrapper", None)
        if wrapper is None:
            found.append(getattr(method, "__globals__", {}).get("__name__", ""))
        else:
            found.append(getattr(wrapper, "__module__", None) or type(wrapper).__module__)
        method = method.__wrapped__
    return found
