"""What watching a call costs the thread that makes it, beside the bare SDK and a peer, in one interleaved run.

    make bench

Each subject runs in a process of its own on the real SDK over an in-memory transport. Blocks of calls take
turns, subject by subject, each switched on and off, so that a machine whose speed drifts drifts for all alike. A figure
is the median over rounds and processes of (on - off) CPU of the calling thread, per call, in µs.
"""

import argparse
import gc
import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import sdks

PEERS = {
    "openai": "opentelemetry.instrumentation.genai.openai",
    "anthropic": "opentelemetry.instrumentation.genai.anthropic",
}
"""OpenTelemetry's own instrumentation, where it takes this version of the SDK (it refuses google-genai 3)."""
SAMPLED_OUT = "chat, sampled out"
REPEATS = 3
REST = 0.003
"""Seconds between two calls. A real call waits for its network meanwhile, and other threads have their turn; here two
busy threads would share one core's caches, and what is measured would be that."""
WORKLOADS = {  # name: SDK, calls per block, what makes the call, target
    "chat": ("openai", 40, sdks.openai_call, {}, "half of the peer's"),
    "stream of 500 chunks": ("openai", 1, sdks.openai_call, {"chunks": 500}, "a tenth of the peer's"),
    "first chunk of a stream": ("openai", 20, sdks.openai_call, {"chunks": 20}, "80"),
    "100 embeddings of 1536": ("openai", 1, sdks.openai_call, {"embeddings": True}, "200"),
    SAMPLED_OUT: ("openai", 40, sdks.openai_call, {}, "70"),
    "message": ("anthropic", 40, sdks.anthropic_call, {}, "half of the peer's"),
    "stream of 200 events": ("anthropic", 2, sdks.anthropic_call, {"events": 200}, "a tenth of the peer's"),
    "generate content": ("google", 40, sdks.gemini_call, {}, "as for chat"),
    "stream of 100 chunks": ("google", 4, sdks.gemini_call, {"chunks": 100}, "as for chat"),
}


def telemetry(workload):
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    class Nowhere(SpanExporter):
        def export(self, _):
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=ALWAYS_OFF if workload == SAMPLED_OUT else ALWAYS_ON)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))


def switches(subject):
    """Two functions that switch the subject on and off, after it has been set up."""
    if subject == "ours":
        import spanledger

        spanledger.configure(state_dir=tempfile.mkdtemp(prefix="spanledger-bench-"))
        spanledger.assembly._runtime.engine.prices.wait()  # so that no call is priced late
        return {"on": spanledger.instrument, "off": spanledger.uninstrument}
    module = importlib.import_module(PEERS[subject])
    instrumentor = next(
        kind for name, kind in vars(module).items() if name.endswith("Instrumentor") and name[0] in "OA"
    )()
    instrumentor.instrument()
    return {"on": instrumentor.instrument, "off": instrumentor.uninstrument}


def worker(subject, workload):
    """Run blocks of calls as told on stdin; answer with the thread CPU in ns of each block."""
    os.environ["ANTHROPIC_OPEN_TELEMETRY"] = "false"  # the bare SDK, not its own spans
    telemetry(workload)
    sdk, _, make, options, _ = WORKLOADS[workload]
    switch = switches(subject if subject == "ours" else sdk)
    ask = make(**options)
    first = workload.startswith("first")

    def call():
        """One call; its thread CPU, or for the first chunk the part of it until then."""
        begun = time.thread_time_ns()
        until = sdks.read(ask(), first)
        return (until or time.thread_time_ns()) - begun

    state = "on"
    for line in sys.stdin:
        wish, count = line.split()
        if wish != state:
            switch[wish]()
            state = wish
        gc.collect()
        gc.disable()
        spent = []
        for _ in range(int(count)):
            spent.append(call())
            time.sleep(REST)
        gc.enable()
        print(statistics.median(spent), flush=True)
    os._exit(0)


def measure(workload, rounds):
    """The bare SDK's µs per call, and what each subject adds: the median over repeats in fresh processes.

    A process may be lucky or unlucky for its whole life by a third, so a subject is compared with itself switched off.
    """
    repeats = [measure_once(workload, rounds) for _ in range(REPEATS)]
    return {name: statistics.median(each[name] for each in repeats) for name in repeats[0]}


def measure_once(workload, rounds):
    """The same in one set of processes, whose blocks take turns."""
    subjects = ("ours", "peer") if WORKLOADS[workload][0] in PEERS else ("ours",)
    procs = {
        subject: subprocess.Popen(
            [sys.executable, __file__, "--worker", subject, workload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for subject in subjects
    }

    def block(subject, switch):
        process = procs[subject]
        process.stdin.write(f"{switch} {WORKLOADS[workload][1]}\n")
        process.stdin.flush()
        return float(process.stdout.readline()) / 1000

    for subject in subjects:
        for switch in ("on", "off", "on", "off"):
            block(subject, switch)
    bare, added = [], {subject: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects:
            took = {switch: block(subject, switch) for switch in (("on", "off") if number % 2 else ("off", "on"))}
            bare.append(took["off"])
            added[subject].append(took["on"] - took["off"])
    for process in procs.values():
        process.stdin.close()
        process.wait()
    return {"bare": statistics.median(bare), **{name: statistics.median(values) for name, values in added.items()}}


def hand_over():
    """Median µs of the recorder's `record` on the caller's thread, its writer at work."""
    code = """
import statistics, sys, tempfile, time
import spanledger
from spanledger import assembly
from spanledger.model import *
spanledger.configure(state_dir=tempfile.mkdtemp())
runtime = assembly._runtime
runtime.engine.prices.wait()
def build():
    return UsageRecord(record_id=record_id_at(now_ns()), started_at=at(now_ns()), operation="chat", provider="openai",
        source="bench", response_model="gpt-4o", usage=Usage(input_tokens=5, output_tokens=5, usage_status="reported"))
took = []
for _ in range(4000):
    begun = time.perf_counter_ns()
    runtime.recorder.record(build)
    took.append(time.perf_counter_ns() - begun)
    time.sleep(0.0005)
took.sort()
spanledger.shutdown()
print(took[len(took) // 2] / 1000, took[int(len(took) * 0.99)] / 1000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(part) for part in done.stdout.split()]


def start_up():
    """CPU ms and MB: importing and instrumenting without an SDK; then with prices loaded."""
    code = """
import resource, sys, time
from opentelemetry import trace, metrics
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        return time.process_time() * 1000, int(file.read().split()[1]) * resource.getpagesize() / 2**20
cpu, memory = now()
import spanledger
spanledger.instrument()
one = now()
from spanledger import assembly
assembly._runtime.engine.prices.wait()
two = now()
print(one[0] - cpu, one[1] - memory, two[0] - one[0], two[1] - memory)
"""
    runs = []
    for _ in range(7):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        runs.append([float(part) for part in done.stdout.split()])
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", nargs=2, metavar=("SUBJECT", "WORKLOAD"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", help="run workloads whose name contains this")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(*arguments.worker)
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {load}")
    print(f"added CPU of the calling thread per call, µs, median of {REPEATS} x {arguments.rounds} rounds")
    print(f"peers: {', '.join(PEERS.values())}\n")
    print(f"{'':36}{'bare SDK':>10}{'spanledger':>12}{'peer':>10}   target")
    for workload in WORKLOADS:
        if arguments.only and arguments.only not in f"{WORKLOADS[workload][0]} {workload}":
            continue
        took = measure(workload, arguments.rounds)
        peer = f"{took['peer']:.0f}" if "peer" in took else "-"
        sdk, target = WORKLOADS[workload][0], WORKLOADS[workload][-1]
        print(f"{sdk:10}{workload:26}{took['bare']:>10.0f}{took['ours']:>12.0f}{peer:>10}   {target}", flush=True)
    if not arguments.only:
        middle, tail = hand_over()
        print(f"\nhand-over to the outbox    p50 {middle:.1f} µs, p99 {tail:.1f} µs (target 5 µs p50)")
        cpu, memory, prices_cpu, prices_memory = start_up()
        print(f"import and instrument      {cpu:.0f} ms CPU, {memory:.1f} MB (target 60 ms, 6 MB)")
        print(
            f"with prices loaded         {prices_cpu:.0f} ms in the background, {prices_memory:.1f} MB (target 40 MB)"
        )


if __name__ == "__main__":
    main()
