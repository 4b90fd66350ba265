"""Follows which tensors of torch's graph share memory, so that what is written in place is never read stale."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from classifier.program.document import Node, Scalar


@dataclass(eq=False)
class Memory:
    """Is what several tensors look at.

    Args:
        tensor: the name of the weight or constant that lies there, if one does.
        variables: the tensors that look at it.
    """

    tensor: str | None = None
    variables: list["Variable"] = field(default_factory=list)

    def holding(self, variable: "Variable") -> "Variable":
        """Returns the variable, which from now on is one of those that look at this memory."""
        self.variables.append(variable)
        return variable

    def keep(self, current: Sequence["Variable"]) -> None:
        """Forgets the values of all other variables: the memory was written to, and they are stale."""
        for variable in self.variables:
            if variable not in current:
                variable.value = None
        self.variables = list(current)


@dataclass(eq=False)
class Variable:
    """Is a tensor or a size of torch's graph; the names of one tensor share it, so that a change reaches all of them.

    Args:
        value: what it is in our program now; None if that was lost.
        memory: where it lies.
        part_of, part: the variable that it is a slice of, and the node that cut it out.
    """

    value: Scalar
    memory: Memory
    part_of: "Variable | None" = None
    part: Node | None = None
