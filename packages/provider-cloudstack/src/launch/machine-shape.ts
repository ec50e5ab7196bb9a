import type { MachineSpec, Wait } from "@diskferry/core/provider";
import { type Parameters, mapParameter } from "../client/cloudstack-client.ts";
import { numberIn, textIn } from "../client/decode.ts";
import type { CloudChoice } from "../client/entities.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import type { NetworkOptions } from "../options.ts";

/** What a machine is deployed with, and what people should know of it. */
export interface MachineShape {
  parameters: Parameters;
  /** Its networks, the first one's card first; they are among the parameters too. */
  cards: CardShape[];
  /** `ostypeid`; undefined: the platform's default stays. */
  osTypeId: string | undefined;
  notes: string[];
}

/** A card: absent addresses are the platform's choice. */
export interface CardShape {
  networkId: string;
  mac: string | undefined;
  address: string | undefined;
}

const MIB = 2 ** 20;
const DEFAULT_MHZ = 1000;

/**
 * Right-sizes a machine from its source's specification: offering, cards, firmware, controllers.
 * @throws ProviderError CONFIG_INVALID for an offering, network or operating system that is not there
 */
export async function shapeMachine(
  cloud: Cloud,
  spec: MachineSpec,
  purpose: "test" | "cutover",
  wait: Wait,
): Promise<MachineShape> {
  const notes: string[] = [];
  const size = await sizeParameters(cloud, spec, wait);
  const cards = await cardsOf(cloud, spec, purpose, wait);
  const osType = await osTypeFor(cloud, spec, wait);
  if (osType === undefined)
    notes.push("The guest's operating system was left at the platform's default; set launch.osType.");
  if (spec.tpm === true) notes.push("The source has a trusted platform module, whose content was not copied.");
  return {
    parameters: {
      serviceofferingid: size.offering.id,
      ...mapParameter("details", { ...size.details, ...hardware(cloud, spec) }),
      ...cardParameters(cards, purpose),
      boottype: spec.firmware === "uefi" ? "UEFI" : "BIOS",
      bootmode: spec.firmware === "uefi" && spec.secureBoot === true ? "SECURE" : "LEGACY",
    },
    cards,
    osTypeId: osType?.id,
    notes,
  };
}

/** Controllers and cards: without drivers of its own for virtio, Windows finds its disk on buses it knows. */
function hardware(cloud: Cloud, spec: MachineSpec): Record<string, string> {
  const { rootDiskController, nicAdapter } = cloud.options.launch ?? {};
  const isWindows = spec.guestFamily === "windows";
  return {
    rootDiskController: rootDiskController ?? (isWindows ? (spec.firmware === "uefi" ? "sata" : "ide") : "virtio"),
    nicAdapter: nicAdapter ?? (isWindows ? "E1000" : "virtio"),
  };
}

interface Size {
  offering: CloudChoice;
  /** For an offering that leaves its size open. */
  details: Record<string, string>;
}

async function sizeParameters(cloud: Cloud, spec: MachineSpec, wait: Wait): Promise<Size> {
  const { serviceOffering, cpuSpeed } = cloud.options.launch ?? {};
  const zoneid = await cloud.zoneId(wait);
  const cpus = spec.cpus ?? 1;
  const memory = Math.ceil((spec.memoryBytes ?? 512 * MIB) / MIB);
  const custom = { cpuNumber: String(cpus), cpuSpeed: String(cpuSpeed ?? DEFAULT_MHZ), memory: String(memory) };
  if (serviceOffering !== undefined) {
    const offering = await cloud.choice("listServiceOfferings", serviceOffering, "service offering", { zoneid }, wait);
    return { offering, details: isCustom(offering) ? custom : {} };
  }
  const fixed: { offering: CloudChoice; cpus: number; memory: number }[] = [];
  let open: CloudChoice | undefined;
  for await (const offering of cloud.choices("listServiceOfferings", { zoneid }, wait)) {
    if (isCustom(offering)) open ??= offering;
    const size = { cpus: numberIn(offering.about["cpunumber"]), memory: numberIn(offering.about["memory"]) };
    if (size.cpus !== undefined && size.memory !== undefined && size.cpus >= cpus && size.memory >= memory)
      fixed.push({ offering, cpus: size.cpus, memory: size.memory });
  }
  const [best] = fixed.sort((one, other) => one.memory - other.memory || one.cpus - other.cpus);
  if (best !== undefined) return { offering: best.offering, details: {} };
  if (open !== undefined) return { offering: open, details: custom };
  throw cloudstackError(
    "CONFIG_INVALID",
    `No service offering of this account holds ${cpus} processors and ${memory} MiB; name one in launch.serviceOffering.`,
    { operation: "launch" },
  );
}

function isCustom(offering: CloudChoice): boolean {
  return offering.about["iscustomized"] === true || offering.about["iscustomized"] === "true";
}

/** Cards: of a test in the isolated network alone, of a cutover as the options map the source's networks. */
async function cardsOf(cloud: Cloud, spec: MachineSpec, purpose: "test" | "cutover", wait: Wait): Promise<CardShape[]> {
  const { testNetwork, networks = [] } = cloud.options.launch ?? {};
  if (purpose === "test") {
    if (testNetwork === undefined) {
      throw cloudstackError(
        "CONFIG_INVALID",
        "A test boots a clone of a machine that still runs: name an isolated network for it in launch.testNetwork.",
        { operation: "launch" },
      );
    }
    return [{ networkId: (await networkNamed(cloud, testNetwork, wait)).id, mac: undefined, address: undefined }];
  }
  if (networks.length === 0) {
    throw cloudstackError("CONFIG_INVALID", "Name the machine's networks in launch.networks.", { operation: "launch" });
  }
  const cards = spec.networkCards ?? [];
  const chosen: { entry: NetworkOptions; mac: string | undefined; address: string | undefined }[] = [];
  for (const card of cards) {
    const entry =
      networks.find(({ from }) => from !== undefined && from === card.network) ??
      networks.find(({ from }) => from === undefined);
    if (entry === undefined || chosen.some((other) => other.entry === entry)) continue;
    const address = card.addresses?.find((each) => /^\d+(\.\d+){3}$/.test(each));
    chosen.push({
      entry,
      mac: entry.keepMac === true ? card.mac : undefined,
      address: entry.keepAddress === true ? address : undefined,
    });
  }
  if (chosen.length === 0) {
    for (const entry of networks)
      if (entry.from === undefined) chosen.push({ entry, mac: undefined, address: undefined });
  }
  const shapes: CardShape[] = [];
  for (const { entry, mac, address } of chosen)
    shapes.push({ networkId: (await networkNamed(cloud, entry.network, wait)).id, mac, address });
  return shapes;
}

function cardParameters(cards: readonly CardShape[], purpose: "test" | "cutover"): Record<string, string> {
  if (purpose === "test") return { networkids: cards.map(({ networkId }) => networkId).join(",") };
  const parameters: Record<string, string> = {};
  for (const [index, { networkId, mac, address }] of cards.entries()) {
    parameters[`iptonetworklist[${index}].networkid`] = networkId;
    if (mac !== undefined) parameters[`iptonetworklist[${index}].mac`] = mac;
    if (address !== undefined) parameters[`iptonetworklist[${index}].ip`] = address;
  }
  return parameters;
}

async function networkNamed(cloud: Cloud, name: string, wait: Wait): Promise<CloudChoice> {
  const filter = { zoneid: await cloud.zoneId(wait), ...(await cloud.scope(wait)) };
  return cloud.choice("listNetworks", name, "network", filter, wait);
}

/** The operating system's entry: the one named, else the one whose words are all in the source's name for its guest. */
async function osTypeFor(cloud: Cloud, spec: MachineSpec, wait: Wait): Promise<CloudChoice | undefined> {
  const { osType } = cloud.options.launch ?? {};
  const all: { choice: CloudChoice; words: string[] }[] = [];
  for await (const choice of cloud.choices("listOsTypes", {}, wait)) {
    const description = textIn(choice.about["description"]) ?? choice.name;
    if (osType !== undefined && (choice.id === osType || description === osType)) return choice;
    all.push({ choice, words: wordsOf(description) });
  }
  if (osType !== undefined) {
    throw cloudstackError("CONFIG_INVALID", `CloudStack lists no operating system ${osType} (listOsTypes).`, {
      operation: "launch",
    });
  }
  const guest = new Set(wordsOf(spec.guest ?? ""));
  const fitting = all.filter(({ words }) => words.length > 1 && words.every((word) => guest.has(word)));
  const [best] = fitting.sort((one, other) => other.words.length - one.words.length);
  if (best !== undefined) return best.choice;
  const plain = spec.guestFamily === "linux" ? "other linux 64 bit" : undefined;
  return all.find(({ words }) => words.join(" ") === plain)?.choice;
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[a-z]+|\d+/g) ?? [];
}
