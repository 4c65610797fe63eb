"""The topology profile: nodes, edges and their constants (specification, section 1.3)."""

import os
from typing import Any

import msgspec

from gbe_aether.documents import read_document
from gbe_aether.reading import a_list, an_object, required, strict_int


class NodeV1(msgspec.Struct, frozen=True):
    """A node; `label` and `attrs` are informational."""

    node_id: int
    label: str = ""
    attrs: dict[str, Any] = msgspec.field(default_factory=dict)


class EdgeV1(msgspec.Struct, frozen=True):
    """An edge between the nodes `i` and `j`, with its conductance `k`, its cap, and its radius.

    `c` works as a causal radius when it is not zero (section 2), whatever else documents call it.
    """

    e_id: int
    i: int
    j: int
    k: int
    cap: int
    SC: int
    c: int = 0
    causal_radius: int | None = None
    attrs: dict[str, Any] = msgspec.field(default_factory=dict)


class TopologySnapshotEdgeV1(msgspec.Struct, frozen=True):
    """An edge as it stands in an I-block."""

    SC: int
    c: int
    cap: int
    e_id: int
    i: int
    j: int
    k: int


class TopologyProfileV1(msgspec.Struct, frozen=True):
    """A graph: nodes 1..N, edges 1..E, and the constants they share. Raises `ValueError` for one that cannot be."""

    gid: str
    profile: str
    N: int
    SC: int
    nodes: tuple[NodeV1, ...]
    edges: tuple[EdgeV1, ...]
    causal_radius: int = 0
    max_edge_cap: int | None = None
    nap_ref: str | None = None
    meta: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def version(self) -> str:
        """`meta.version` as text, `v1` where there is none."""
        return str(self.meta["version"]) if "version" in self.meta else "v1"

    def radius(self, edge: EdgeV1) -> int:
        """The causal radius in force at an edge; 0 is none."""
        return edge.causal_radius or edge.c or self.causal_radius

    def cap(self, edge: EdgeV1) -> int:
        """The cap in force at an edge."""
        return edge.cap if self.max_edge_cap is None else min(edge.cap, self.max_edge_cap)

    def snapshot(self) -> list[TopologySnapshotEdgeV1]:
        """The edges as an I-block lists them."""
        return [TopologySnapshotEdgeV1(e.SC, e.c, e.cap, e.e_id, e.i, e.j, e.k) for e in self.edges]


_MISSING = "Missing required field: {}"


def load_topology_profile(path: str | os.PathLike[str]) -> TopologyProfileV1:
    """Read a topology from its file. Raises what `read_document` and `topology_from_document` raise."""
    return topology_from_document(read_document(path, "Topology"))


def topology_from_document(document: Any) -> TopologyProfileV1:
    """The topology in a document.

    Raises:
        ValueError: with the message of section 1.3 for whatever is wrong first; every edge on its
            own is looked at before the topology as a whole.
    """
    doc = an_object(document, "Topology must be an object")
    gid = str(required(doc, "gid", _MISSING))
    profile = str(required(doc, "profile", _MISSING))
    size = strict_int(required(doc, "N", _MISSING), "N")
    scale = strict_int(required(doc, "SC", _MISSING), "SC")
    nodes = tuple(_node(each) for each in a_list(required(doc, "nodes", _MISSING), "nodes must be a list"))
    edges = tuple(_edge(each) for each in a_list(required(doc, "edges", _MISSING), "edges must be a list"))
    radius = strict_int(doc.get("causal_radius", 0), "causal_radius")
    max_cap = doc.get("max_edge_cap")
    if max_cap is not None and (not isinstance(max_cap, int) or isinstance(max_cap, bool) or max_cap <= 0):
        raise ValueError("max_edge_cap must be a positive integer when provided")
    nap_ref = doc.get("nap_ref")
    if nap_ref is not None and not isinstance(nap_ref, str):
        raise ValueError("nap_ref must be a string when provided")
    meta = doc.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise ValueError("meta must be an object if provided")
    return TopologyProfileV1(gid, profile, size, scale, nodes, edges, radius, max_cap, nap_ref, dict(meta or {}))


def _node(value: Any) -> NodeV1:
    doc = an_object(value, "Node entry must be an object")
    node_id = strict_int(doc.get("node_id"), "node.node_id")
    attrs = an_object(doc.get("attrs", {}), "node.attrs must be an object")
    return NodeV1(node_id, str(doc.get("label", "")), attrs)


def _edge(value: Any) -> EdgeV1:
    doc = an_object(value, "Edge entry must be an object")
    e_id, i, j, k, cap, scale = (
        strict_int(doc.get(name), f"edge.{name}") for name in ("e_id", "i", "j", "k", "cap", "SC")
    )
    c = strict_int(doc.get("c", 0), "edge.c")
    radius = doc.get("causal_radius")
    if radius is not None:
        radius = strict_int(radius, "edge.causal_radius")
    attrs = an_object(doc.get("attrs", {}), "edge.attrs must be an object")
    if scale <= 0:
        raise ValueError("Edge SC must be positive")
    if radius is not None and radius <= 0:
        raise ValueError("edge.causal_radius must be positive when provided")
    return EdgeV1(e_id, i, j, k, cap, scale, c, radius, attrs)


def _check(topology: TopologyProfileV1) -> None:
    if not topology.gid:
        raise ValueError("gid must be provided")
    if topology.SC <= 0:
        raise ValueError("SC must be positive")
    if topology.causal_radius < 0:
        raise ValueError("causal_radius must be non-negative")
    nodes = topology.nodes
    if len(nodes) != topology.N or any(node.node_id != number for number, node in enumerate(nodes, 1)):
        raise ValueError("Nodes must be contiguous from 1..N in ascending order")
    if any(edge.e_id != number for number, edge in enumerate(topology.edges, 1)):
        raise ValueError("Edges must be contiguous from 1..E in ascending order")
    for edge in topology.edges:
        if not (1 <= edge.i <= topology.N and 1 <= edge.j <= topology.N):
            raise ValueError("Edge endpoints must reference valid node IDs")
        if edge.SC != topology.SC:
            raise ValueError("Each edge SC must match the topology SC")
