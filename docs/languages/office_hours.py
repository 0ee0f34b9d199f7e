"""A trigger: there is work during office hours, in the time zone of the plugin.

Its parameters are {"from": 8, "to": 18}, hours of the days from Monday to Friday.
"""

import json
from typing import List

from componentize_py_types import Err, Ok, Result
from wit_world import exports
from wit_world.exports import trigger
from wit_world.imports import call_context, time, types


def hours(target: trigger.Target) -> range:
    """The hours that a target names, or an error that says what would be right."""
    try:
        parameters = json.loads(target.parameters)
        found = range(int(parameters["from"]), int(parameters["to"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Err(
            types.PluginError_InvalidConfiguration(f'{error!r}; write {{"from": 8, "to": 18}}')
        ) from error
    return found


class Trigger(exports.Trigger):
    def check(self, target: trigger.Target) -> None:
        hours(target)

    def observe(
        self, targets: List[trigger.Target]
    ) -> List[Result[trigger.Observation, types.PluginError]]:
        now = time.to_civil(time.now(), None)
        answers: List[Result[trigger.Observation, types.PluginError]] = []
        for target in targets:
            try:
                opened = hours(target)
            except Err as error:
                answers.append(error)
                continue
            active = now.weekday <= 5 and now.hour in opened
            reason = f"it is {now.hour:02}:{now.minute:02} in {time.zone()}, says the {call_context.caller()}"
            answers.append(Ok(trigger.Observation(active, [], reason, None, [])))
        return answers
