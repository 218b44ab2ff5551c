"""Dataclasses that torch's trees look into, as they do into a NamedTuple: so a graph's static tensors can be theirs."""

from torch.utils._pytree import register_pytree_node


class Tree:
    """Base of a dataclass whose fields are the branches of a tree."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register_pytree_node(
            cls,
            lambda tree: (list(vars(tree).values()), tuple(vars(tree))),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
        )
