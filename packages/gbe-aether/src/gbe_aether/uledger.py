"""The U-ledger: one hash chain over all records (specification, section 8)."""

from collections.abc import Mapping
from typing import Any

from gbe_aether.canonical import H, json_bytes, plain, refuse_floats, text_json
from gbe_aether.records import APXManifestV1, ULedgerEntryV1


def manifest_hash(manifest: APXManifestV1) -> str:
    """`H` of a manifest without `apxi_view_ref` where that is null."""
    record = plain(manifest)
    if record["apxi_view_ref"] is None:
        del record["apxi_view_ref"]
    return H(record)


class EntryText:
    """Writes the canonical text of the entries of one session.

    Args:
        gid, run_id, window_id: Of the session; the window is the primary one.
        manifest: The primary manifest.
        meta: The budget usage of the whole run under `governance_budget`, or nothing.
        policy_set_hash, topology_version: As in every entry.
    """

    def __init__(
        self,
        gid: str,
        run_id: str,
        window_id: str,
        manifest: APXManifestV1,
        meta: Mapping[str, Any],
        policy_set_hash: str,
        topology_version: str,
    ) -> None:
        refuse_floats(meta)
        self.gid = gid
        self.run_id = run_id
        self.window_id = window_id
        self.manifest_check = manifest.manifest_check
        self.manifest_hash = manifest_hash(manifest)
        self.meta = dict(meta)
        self.policy_set_hash = policy_set_hash
        self.topology_version = topology_version
        gid_text, run_text, window_text, version = map(text_json, (gid, run_id, window_id, topology_version))
        meta_text = json_bytes(self.meta).decode()
        self._before_loom = (
            f',"apx_manifest_hash":"{self.manifest_hash}","codex_library_hash":null,"gid":{gid_text},"loom_block_hash":"'
        ).encode()
        self._before_nap = (
            f'","manifest_check":{self.manifest_check},"meta":{meta_text},"nap_envelope_hash":"'
        ).encode()
        self._before_prev = f'","policy_set_hash":"{policy_set_hash}","prev_entry_hash":'.encode()
        self._before_tick = f',"run_id":{run_text},"slp_event_refs":[],"tick":'.encode()
        self._before_umx = f',"timestamp_utc":null,"topology_version":{version},"umx_ledger_hash":"'.encode()
        self._end = f'","window_id":{window_text}}}'.encode()

    def write(self, tick: int, chain: int, umx: bytes, loom: bytes, nap: bytes, previous: bytes | None) -> bytes:
        """The text of a tick's entry; the hashes are hexadecimal text."""
        return b'{"C_t":%d%b%b%b%b%b%b%b%d%b%b%b' % (
            chain,
            self._before_loom,
            loom,
            self._before_nap,
            nap,
            self._before_prev,
            b"null" if previous is None else b'"%b"' % previous,
            self._before_tick,
            tick,
            self._before_umx,
            umx,
            self._end,
        )

    def record(self, tick: int, chain: int, umx: str, loom: str, nap: str, previous: str | None) -> ULedgerEntryV1:
        """The entry as a record."""
        return ULedgerEntryV1(
            C_t=chain,
            apx_manifest_hash=self.manifest_hash,
            codex_library_hash=None,
            gid=self.gid,
            loom_block_hash=loom,
            manifest_check=self.manifest_check,
            meta=self.meta,
            nap_envelope_hash=nap,
            policy_set_hash=self.policy_set_hash,
            prev_entry_hash=previous,
            run_id=self.run_id,
            slp_event_refs=[],
            tick=tick,
            timestamp_utc=None,
            topology_version=self.topology_version,
            umx_ledger_hash=umx,
            window_id=self.window_id,
        )
