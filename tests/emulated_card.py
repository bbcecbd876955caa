"""A CUDA card that is not there: its tensors lie in the CPU's memory, and say that they are the card's.

What a card refuses is refused: tensors of two devices in one operation, ``numpy``, a random generator of the
other device and, while a CUDA graph is recorded, what waits for a result or copies between the devices.
A recording runs nothing; it is replayed operation by operation, in the memory that it was recorded in.
"""

from __future__ import annotations

import contextlib
import threading
import types

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map

CARD, CPU = torch.device("cuda:0"), torch.device("cpu")
COPIES = ("aten::_to_copy", "aten::copy_")
INDEXED = ("aten::index", "aten::index_put_", "aten::_index_put_impl_")
SCALARS = ("aten::where", "aten::fill_", "aten::_fused", "aten::_foreach")  # take a single number of the CPU
WAIT = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::_unique2", "aten::masked_select")
FACTORIES = ("tensor", "as_tensor", "arange", "linspace", "randperm", "hann_window")


class Refused(RuntimeError):
    """What a card would refuse."""


class State(threading.local):
    """Of a thread: another one may read the next batch while this one records."""

    recording: Graph | None = None
    leaves = False  # whether the next copy goes to the CPU; those that torch makes by itself stay


STATE = State()


class Card(torch.Tensor):
    """A tensor of the card; ``inner`` has its values. To torch's own code it is a tensor of the CPU."""

    __module__ = "torch.emulated"  # Foolbox asks for the package of its class
    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda, is_cpu = property(lambda self: CARD), True, False

    @staticmethod
    def __new__(cls, inner):
        like = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.size(), **like)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})

    def __deepcopy__(self, memo):
        made = Card(self.inner.clone()).requires_grad_(self.requires_grad)
        made.__dict__ |= {name: value for name, value in self.__dict__.items() if name != "inner"}
        return memo.setdefault(id(self), made)

    def to(self, *args, **kwargs):
        if args and isinstance(args[0], torch.Tensor):
            args = (args[0].device, args[0].dtype)
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
        if device in (None, CARD) and dtype in (None, self.dtype) and layout is None:
            return self
        STATE.leaves = device == CPU
        return torch.ops.aten._to_copy(self, dtype=dtype, memory_format=layout)

    def cpu(self):
        return self.to(CPU)

    def new_tensor(self, data, **how):
        return torch.tensor(data, **{"dtype": self.dtype, "device": CARD} | how)

    def tolist(self):
        return self.cpu().tolist()

    def data_ptr(self):
        return self.inner.data_ptr()

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Generator(torch._C.Generator):
    """A random generator of a device."""

    there: dict[int, Generator] = {}  # noqa: RUF012

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        if torch.device(device).type == "cuda":
            cls.there[made._cdata] = made
        return made


class Graph:
    """A CUDA graph: operations, their arguments, and the memory of their results."""

    def __init__(self):
        self.tape = []

    def replay(self):
        for function, args, kwargs, into in self.tape:
            for old, new in zip(tree_leaves(into), tree_leaves(function(*args, **kwargs)), strict=False):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)


@contextlib.contextmanager
def recorded(graph, **how):
    STATE.recording = graph
    try:
        yield
    finally:
        STATE.recording = None


def run(function, args, kwargs):
    """One operation on the card."""
    name, leaves, STATE.leaves = function._schema.name, STATE.leaves, False
    check(function, name, args, kwargs, leaves)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory")}
    given, named = tree_map(inner, list(args)), tree_map(inner, kwargs)
    if torch.Tag.inplace_view in function.tags:
        function(*given, **named)
        with no_dispatch():
            return function(*args, **kwargs)
    writes = [each.alias_info is not None and each.alias_info.is_write for each in function._schema.arguments]
    if any(writes):
        if STATE.recording:
            STATE.recording.tape.append((function, given, named, None))
        else:
            function(*given, **named)
        whole = dict(zip([each.name for each in function._schema.arguments], args, strict=False)) | kwargs
        names = [each.name for each, own in zip(function._schema.arguments, writes, strict=True) if own]
        return whole[names[0]] if function._schema.returns else None
    once = given
    if name == "aten::native_batch_norm" and STATE.recording:  # writes to two arguments without saying so
        once = [*given[:3], *(None if each is None else each.clone() for each in given[3:5]), *given[5:]]
    found = function(*once, **named)
    if STATE.recording and not function.is_view:
        STATE.recording.tape.append((function, given, named, found))
    return found if leaves else tree_map(outer, found)


def inner(value):
    return value.inner if isinstance(value, Card) else value


def outer(value):
    return Card(value) if isinstance(value, torch.Tensor) else value


def check(function, name, args, kwargs, leaves):
    """Refuse what a card refuses."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    here = [value for value in tensors if not isinstance(value, Card)]
    generator = kwargs.get("generator")
    if generator is not None and generator._cdata not in Generator.there:
        raise Refused(f"{name}: expected a generator of the card")
    masks = name in INDEXED and any(each is not None and each.dtype == torch.bool for each in args[1])
    copies = name in COPIES + INDEXED and (leaves or here)
    if STATE.recording and (name in WAIT or masks or copies):
        raise Refused(f"{name} waits or copies, which is not permitted while a graph is recorded")
    if name in COPIES or not here:
        return
    if name in INDEXED and isinstance(args[0], Card):
        here = [value for value in args[2:3] if value is here[-1] and value.dim()]
    elif name not in INDEXED and (name.startswith(SCALARS) or torch.Tag.pointwise in function.tags):
        here = [value for value in here if value.dim()]
    if here and len(tensors) > 1:
        shapes = [(value.device.type, tuple(value.shape)) for value in tensors]
        raise Refused(f"{name}: expected all tensors to be on the same device, given {shapes}")


def moved(make):
    """A factory whose tensors are made on the CPU and copied to the card."""

    def made(*args, device=None, **kwargs):
        there = device is not None and torch.device(device).type == "cuda"
        found = make(*args, device=CPU if there else device, **kwargs)
        return found.to(CARD) if there else found

    return made


@contextlib.contextmanager
def emulated(monkeypatch):
    """A card, for a while."""
    torch._C._ensureCUDADeviceGuardSet()
    library = torch.library.Library("aten", "IMPL")
    for make in (torch.ops.aten.empty.memory_format, torch.ops.aten.empty_strided.default):
        name = make._schema.name.removeprefix("aten::") + f".{make._schema.overload_name}".rstrip(".")
        made = lambda *args, make=make, **how: Card(make(*args, **how | {"device": CPU}))  # noqa: E731
        library.impl(name, made, "CUDA", allow_override=True)
    facts = types.SimpleNamespace(total_memory=80 * 2**30, major=9)
    nothing = contextlib.nullcontext
    card = {"_lazy_init": None, "synchronize": None, "empty_cache": None, "manual_seed_all": None}
    card |= {"set_per_process_memory_fraction": None, "is_available": True, "device_count": 1}
    card |= {"current_device": 0, "get_device_name": "emulated", "get_device_properties": facts}
    card |= {"get_device_capability": (9, 0), "stream": nothing(), "device": nothing()}
    card |= {"current_stream": types.SimpleNamespace(wait_stream=lambda other: None)}
    card["Stream"] = card["current_stream"]
    for name, value in card.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value, **how: value)
    random, to, autocast = (torch.get_rng_state, torch.set_rng_state), torch.Tensor.to, torch.autocast
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=None: random[0]())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: random[1](state))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recorded)
    for name in FACTORIES:
        monkeypatch.setattr(torch, name, moved(getattr(torch, name)))
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "autocast", lambda device, *args, **how: autocast("cpu", *args, **how))

    def as_other(self, *args, **how):
        card = args and isinstance(args[0], Card)
        return to(self, *((CARD, args[0].dtype) if card else args), **how)

    def grouped(lists, with_indices=False):  # all of one device and type
        device = CARD if isinstance(lists[0][0], Card) else CPU
        return {(device, torch.float32): (lists, range(len(lists[0])))}

    monkeypatch.setattr(torch.Tensor, "to", as_other)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(grouped))
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield CARD
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
        library._destroy()
        Generator.there.clear()
