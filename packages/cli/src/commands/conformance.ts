import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { openSource, openTarget, type ProviderDefinition, ProviderError, type ResolvedUri } from "@diskferry/core";
import type { Cost, Machine, PlannedDisk, Preflight } from "@diskferry/core/provider";
import {
  conformance as cases,
  type ConformanceHarness,
  type ConformanceReport,
  formatConformance,
  NotJudged,
} from "@diskferry/provider-testkit";
import type { Command, CommandContext } from "../command.ts";
import { guestWriter } from "../conformance/guest-write.ts";
import { Ledger, type Leftover } from "../conformance/ledger.ts";
import { rehearse } from "../conformance/rehearsal.ts";
import { DIFFERENT, DONE, STOPPED, UNEXPECTED } from "../exit-codes.ts";
import { Providers } from "../providers.ts";
import { bytesFrom, formatBytes } from "../quantities.ts";
import { providerOptions } from "../shared-options.ts";
import { usageError } from "../usage-error.ts";

/** What is judged, and where. */
interface Place {
  resolved: ResolvedUri;
  source: { machine: Machine; disk: { key: string; size: number } } | undefined;
  /** Bytes of the volumes that are made; undefined where the target is not judged. */
  volumeSize: number | undefined;
}

const defaultSize = 16 << 20;
const patienceMs = 15 * 60_000;

/** Judges a provider against a place that nobody needs. */
export const conformance: Command = {
  name: "conformance",
  summary: "judge a provider against a real place that nobody needs, clause by clause of the contract",
  usage: ["<uri> --scratch [--yes]"],
  options: {
    ...providerOptions,
    scratch: { summary: "nobody needs this place: snapshots, volumes and machines may come and go in it" },
    yes: { summary: "begin; without it only what would be made is told" },
    side: { value: "source|target", summary: "judge only this side; default every side that the provider has" },
    machine: { value: "id", summary: "the machine whose disk is read, where the source has several" },
    disk: { value: "key", summary: "its disk; default the first that can be copied" },
    size: { value: "bytes", summary: "how large the volumes are that are made; default 16MiB" },
    "guest-write": {
      value: "command",
      summary:
        "writes standard input to $DISKFERRY_DISK at $DISKFERRY_OFFSET inside the guest; the disk is overwritten",
    },
    power: { summary: "the machine may be shut down, powered off and on" },
    snapshotless: { value: "reason", summary: "why snapshots make nothing on this platform, for the report" },
    unfixed: { value: "reason", summary: "why a snapshot does not keep what the disk held" },
    unfenced: { value: "reason", summary: "why nothing cuts an older writer off" },
  },
  async run(context) {
    const { positionals, options, io, output, interrupts } = context;
    const [uri, ...more] = positionals;
    if (uri === undefined || more.length > 0) throw usageError("conformance takes one URI");
    if (!options.flag("scratch"))
      throw usageError("conformance writes: name a place that nobody needs, and say so by --scratch");
    const signal = AbortSignal.any([interrupts.pause, interrupts.stop]);
    const resolved = await new Providers(io.cwd, options.list("provider")).resolve(uri);
    const place = await look(resolved, context, signal);
    const plan = await announce(uri, place, context, signal);
    if (!options.flag("yes")) {
      output.result("conformance", { begun: false, plan }, `${plan}Nothing was done. Add --yes to begin.\n`);
      return DONE;
    }
    output.notice(plan.trimEnd());

    const ledgers = await openLedgers(place, io.cwd);
    if (!ledgers.source.isEmpty || !ledgers.target.isEmpty) {
      output.notice("an earlier run was cut short: what it left is removed first");
      await tidy(ledgers, place, context);
    }
    const report = await judge(harnessOf(place, ledgers, context), context, signal);
    const left = await tidy(ledgers, place, context);
    const counts = `${report.judged.length} hold, ${report.failed.length} are broken, ${report.skipped.length} were NOT JUDGED`;
    const rest = left.map(({ kind, id, reason }) => `left behind: ${kind} ${id}: ${reason}\n`).join("");
    const failed = report.failed.map(({ id, clause, error }) => ({ id, clause, found: String(error) }));
    output.result(
      "conformance",
      { begun: true, judged: report.judged, notJudged: report.skipped, failed, left },
      `${formatConformance(report)}${counts}\n${rest === "" ? "everything that was made is removed\n" : rest}`,
    );
    if (signal.aborted) return STOPPED;
    if (report.failed.length > 0) return DIFFERENT;
    return left.length > 0 ? UNEXPECTED : DONE;
  },
};

/** Opens each side once, so that what cannot work is told before anything is made. */
async function look(resolved: ResolvedUri, context: CommandContext, signal: AbortSignal): Promise<Place> {
  const { definition, options } = resolved;
  const { options: given } = context;
  const only = given.choice("side", ["source", "target"]);
  const place: Place = { resolved, source: undefined, volumeSize: undefined };
  if (only !== "target" && definition.source !== undefined) {
    await using source = await openSource(definition, options, { signal });
    const machine = await source.machine(given.text("machine") ?? (await onlyMachine(source.machines({ signal }))), {
      signal,
    });
    const wanted = given.text("disk");
    const disk = machine.disks.find(({ key, ineligible }) =>
      wanted === undefined ? ineligible === undefined : key === wanted,
    );
    if (disk === undefined)
      throw new ProviderError("NOT_FOUND", `machine ${machine.name} has no disk ${wanted ?? "that can be copied"}`, {
        operation: "find disk",
      });
    place.source = { machine, disk };
  }
  if (only !== "source" && definition.target !== undefined) {
    await using _target = await openTarget(definition, options, { signal });
    place.volumeSize = given.read("size", wholeSectors, "a multiple of 512 bytes: 16777216 or 16MiB") ?? defaultSize;
  }
  return place;
}

function wholeSectors(text: string): number | undefined {
  const bytes = bytesFrom(text);
  return bytes !== undefined && bytes > 0 && bytes % 512 === 0 ? bytes : undefined;
}

/** The definition with the sides that are judged alone: the other one may not open with these options. */
function sidesOf({ resolved, source, volumeSize }: Place): ProviderDefinition {
  const { source: openSide, target: targetSide, ...rest } = resolved.definition;
  return {
    ...rest,
    ...(source === undefined || openSide === undefined ? {} : { source: openSide }),
    ...(volumeSize === undefined || targetSide === undefined ? {} : { target: targetSide }),
  };
}

async function onlyMachine(machines: AsyncIterable<Machine>): Promise<string> {
  const found: string[] = [];
  for await (const { id } of machines) if (found.push(id) > 5) break;
  if (found.length === 1) return found[0]!;
  throw usageError(`name the machine by --machine; there are: ${found.join(", ") || "none"}`);
}

/** What the run would make, overwrite and cost, in words. */
async function announce(uri: string, place: Place, context: CommandContext, signal: AbortSignal): Promise<string> {
  const { source, volumeSize, resolved } = place;
  const command = context.options.text("guest-write");
  const { snapshots, volumes, commits, launches } = await rehearse({
    source: source !== undefined,
    target: volumeSize !== undefined,
    guestWrites: command !== undefined,
  });
  const lines = [`the conformance suite at ${uri}, provider ${resolved.definition.name}:`];
  const costs: Cost[] = [];
  let prices = false;
  const planned = (disk: string, size: number): PlannedDisk => {
    const whole = { value: size, kind: "bound" as const };
    return { disk, size, mode: "full", read: whole, write: whole };
  };
  const told = (before: Preflight | undefined, times: number): void => {
    prices ||= before?.costs !== undefined;
    for (const cost of before?.costs ?? [])
      costs.push({ ...cost, amount: { ...cost.amount, value: cost.amount.value * times } });
    for (const { severity, subject, message, remedy } of before?.findings ?? [])
      if (severity !== "info")
        lines.push(`- ${severity}: ${subject}: ${message}${remedy === undefined ? "" : `; ${remedy}`}`);
  };
  if (source !== undefined) {
    const { machine, disk } = source;
    lines.push(
      `- takes at most ${snapshots} snapshots of machine ${machine.name} (${machine.id}), a few at a time, and releases them`,
    );
    if (command !== undefined)
      lines.push(`- OVERWRITES disk ${disk.key} (${formatBytes(disk.size)}) of that machine by: ${command}`);
    if (context.options.flag("power")) lines.push("- shuts that machine down, powers it off and on again");
    await using opened = await openSource(resolved.definition, resolved.options, { signal });
    told(await opened.preflight?.(machine, { disks: [planned(disk.key, disk.size)], signal }), snapshots);
  }
  if (volumeSize !== undefined) {
    lines.push(
      `- makes at most ${volumes} volumes of ${formatBytes(volumeSize)} and ${commits} commits, a few at a time, and removes them`,
    );
    await using opened = await openTarget(resolved.definition, resolved.options, { signal });
    if (opened.launch !== undefined)
      lines.push(`- launches at most ${launches} machines, a few at a time, and terminates them`);
    told(await opened.preflight?.({ disks: [planned("disk", volumeSize)], signal }), commits);
  }
  for (const { item, amount, currency, pricesOf } of costs)
    lines.push(`- costs at most about ${amount.value.toFixed(2)} ${currency} for ${item} (prices of ${pricesOf})`);
  if (!prices) lines.push("- what that costs is not known: this provider tells no prices");
  return `${lines.join("\n")}\n`;
}

function harnessOf(place: Place, ledgers: Ledgers, context: CommandContext): ConformanceHarness {
  const { resolved, source, volumeSize } = place;
  const { options, io } = context;
  const { definition } = resolved;
  const write = guestWriter(options.text("guest-write"), io.env);
  const reason = (name: "snapshotless" | "unfixed" | "unfenced"): { [Name in typeof name]?: string } => {
    const given = options.text(name);
    return given === undefined ? {} : { [name]: given };
  };
  const harness: ConformanceHarness = {
    name: definition.name,
    patienceMs,
    // No schema of options takes a number.
    definition: { provider: sidesOf(place), config: resolved.options, badConfig: 42, uri: resolved.uri.text },
  };
  if (source !== undefined) {
    const { machine, disk } = source;
    const other = machine.disks.find(({ key, ineligible }) => key !== disk.key && ineligible === undefined);
    const writes = (key: string) => (offset: number, bytes: Uint8Array) =>
      write({ machine: machine.id, disk: key, offset }, bytes);
    harness.source = {
      open: async () => ledgers.source.source(await openSource(definition, resolved.options)),
      machine: machine.id,
      disk: disk.key,
      writeGuest: writes(disk.key),
      mayPower: options.flag("power"),
      ...(other === undefined ? {} : { second: { key: other.key, write: writes(other.key) } }),
      ...reason("snapshotless"),
      ...reason("unfixed"),
    };
  }
  if (volumeSize !== undefined) {
    harness.target = {
      open: async () => ledgers.target.target(await openTarget(definition, resolved.options)),
      size: volumeSize,
      readVolume: async (volume, offset, length) => {
        await using target = await openTarget(definition, resolved.options);
        if (target.read === undefined) throw new NotJudged("the target opens no volume for reading");
        await using reader = await target.read(volume);
        const { blockSize, size } = reader;
        const start = Math.floor(offset / blockSize) * blockSize;
        const bytes = new Uint8Array(Math.min(size, Math.ceil((offset + length) / blockSize) * blockSize) - start);
        await reader.read(start, bytes);
        return bytes.subarray(offset - start, offset - start + length);
      },
      ...reason("unfenced"),
    };
  }
  return harness;
}

/** Each side has its own, so that judging one of them does not forget what an earlier run left at the other. */
interface Ledgers {
  source: Ledger;
  target: Ledger;
}

async function openLedgers({ resolved }: Place, folder: string): Promise<Ledgers> {
  const job = `conformance-${randomUUID()}`;
  const [source, target] = ["source", "target"].map((side) =>
    Ledger.open(join(folder, `diskferry-conformance-${resolved.definition.name}-${side}.jsonl`), job),
  );
  return { source: await source!, target: await target! };
}

/** Runs the clauses one after another; after an interrupt the rest is not judged. */
async function judge(
  harness: ConformanceHarness,
  { output }: CommandContext,
  signal: AbortSignal,
): Promise<ConformanceReport> {
  const report: ConformanceReport = { name: harness.name, judged: [], skipped: [], failed: [] };
  for (const { id, clause, run } of cases(harness)) {
    if (signal.aborted) {
      report.skipped.push({ id, reason: "interrupted" });
      continue;
    }
    let reason: string | undefined;
    const skipping = new Error("not judged");
    const skip = (why: string): never => {
      reason = why;
      throw skipping;
    };
    try {
      await run({ skip });
      report.judged.push(id);
      output.notice(`judged ${id}`);
    } catch (error) {
      if (error === skipping) report.skipped.push({ id, reason: reason ?? "" });
      else {
        report.failed.push({ id, clause, error });
        output.notice(`FAILED ${id}`);
      }
    }
  }
  return report;
}

/** Removes what is written down. Not interrupted: what a place is left with is worse than a late end. */
async function tidy(
  ledgers: Ledgers,
  { resolved, source, volumeSize }: Place,
  context: CommandContext,
): Promise<Leftover[]> {
  const { definition, options } = resolved;
  const wait = { signal: context.interrupts.stop };
  const left: Leftover[] = [];
  if (source !== undefined) {
    await using opened = await openSource(definition, options);
    left.push(...(await ledgers.source.clear(opened, undefined, wait)));
  }
  if (volumeSize !== undefined) {
    await using opened = await openTarget(definition, options);
    left.push(...(await ledgers.target.clear(undefined, opened, wait)));
  }
  return left;
}
