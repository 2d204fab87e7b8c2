"""Print result files of run.py (JSON lines) as one Markdown table: `python report.py results.jsonl ...`."""

import json
import sys


def shown(values, *keys):
    """The named quantiles of one distribution."""
    return " / ".join(f"{values[key]:.0f}" for key in keys) if values else "-"


def remarks(r):
    """What the fixed columns have no place for."""
    phase = r["phase"]
    if phase == "up":
        join = r["join_ms"]["med"] if r["join_ms"] else None
        return f"up in {r['seconds']} s, join med {join} ms, {r['packets_per_node']} packets a node"
    if phase == "memory":
        return (
            f"{r['marginal_kib_per_node']} KiB a node (+ process base: {r['rss_kib_per_node']}), "
            f"{r['idle_packets_per_node_s']} idle packets/s"
        )
    also = []
    if r.get("join_ms"):
        join, both = r["join_ms"], r["join_and_get_ms"]
        also.append(f"join med {join['med']} p95 {join['p95']}, join+get med {both['med']} p95 {both['p95']}")
    if r.get("missed_keys"):
        also.append(f"{r['missed_keys']} keys missed, {r['missed_keys_found_by_others']} of them found by others")
    if r.get("stored"):
        also.append(f"stored on {r['stored']['med']:g}")
    if "cpu_use" in r:
        also.append(f"cpu {r['cpu_use']}, shim late {r.get('shim_late_ms', '?')} ms")
    return "; ".join(also)


def table(rows):
    """The Markdown lines for the phases in `rows`."""
    yield (
        "| system | N | one-way ms | phase | ok | first value ms: med / p95 / max | converged ms: med / p95 "
        "| requests med / p95 | also |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in rows:
        if r["phase"] in ("end", "warmup"):
            continue
        low, high = r["delay"]
        delay = f"{low:g}-{high:g}" + (f", loss {r['loss']:.0%}" if r.get("loss") else "")
        counts = f"{r.get('ok', '')}/{r.get('total', '')}"
        yield (
            f"| {r['name']} {r['version']} | {r['n']} | {delay} | {r['phase']} | {counts} "
            f"| {shown(r.get('first_ms'), 'med', 'p95', 'max')} | {shown(r.get('done_ms'), 'med', 'p95')} "
            f"| {shown(r.get('requests'), 'med', 'p95')} | {remarks(r)} |"
        )


def main():
    rows = []
    for name in sys.argv[1:]:
        with open(name) as file:
            rows += [json.loads(line) for line in file]
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
