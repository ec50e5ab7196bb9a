import type { LaunchDisk, LaunchRequest, LaunchedMachine, MachineSpec, Wait } from "@diskferry/core/provider";
import { isProviderError } from "@diskferry/core/provider";
import { mapParameter } from "../client/cloudstack-client.ts";
import type { CloudMachine, CloudVolume } from "../client/entities.ts";
import { ensure } from "../client/ensure.ts";
import type { Cloud } from "../cloud.ts";
import { cloudstackError } from "../errors.ts";
import { complete, renameVolume, startMachine } from "../launch/deploy-machine.ts";
import { type LaunchScope, diskNote, launchName, launchScope, launchedMachine } from "../launch/launch-scope.ts";
import { type MachineShape, shapeMachine } from "../launch/machine-shape.ts";
import { freed } from "../launch/take-replica.ts";
import { terminateMachine } from "../launch/terminate-machine.ts";
import { hostName } from "../names.ts";
import { type ImportPool, adoptFile, adoptedVolume, awaitImports, forgetVolume } from "./adopt-file.ts";
import { type ImportPlace, filesAsReplicas, nameFor } from "./import-place.ts";
import { ENDING, ownNameOf } from "./pool-folder.ts";

/** From this version on `importVm` takes the card's addresses. */
const TAKES_ADDRESSES = "4.22.1";

/**
 * Starts a machine whose root is a file on the pool (`importVm`), with neither template nor swap. A test has copies of the files,
 * a cutover the replicas' own: CloudStack forgets the boot disk's volume first, since it adopts no file twice. A call that was
 * killed anywhere goes on where it was, by the names of files and machine.
 */
export async function launchByImport(
  place: ImportPlace,
  spec: MachineSpec,
  disks: readonly LaunchDisk[],
  request: LaunchRequest,
): Promise<LaunchedMachine> {
  const { cloud } = place;
  const { key, purpose, job, signal } = request;
  const wait = { signal };
  signal?.throwIfAborted();
  const boot = disks.find((disk) => disk.boot === true) ?? disks[0];
  if (boot === undefined) throw cloudstackError("CONFIG_INVALID", "A machine is launched from at least one disk.");
  const scope = launchScope(job, key);
  await awaitImports(cloud, wait);
  const replicas = filesAsReplicas(place);
  const ids = disks.map(({ volume }) => volume.id);
  const known = await launchedMachine(cloud, scope, wait);
  const describe = (machine: CloudMachine, notes: string[]): LaunchedMachine => ({
    id: machine.id,
    name: machine.displayName,
    purpose,
    consumed: purpose === "cutover",
    notes,
    data: { ...scope, replicas: ids },
  });
  if (known?.state === "Running") return describe(known, []);
  const shape = await shapeMachine(cloud, spec, purpose, wait);
  const pool = await place.pool(wait);
  try {
    const data: CloudVolume[] = [];
    let root = "";
    for (const each of disks) {
      const file = await fileFor(place, scope, each, purpose, known, wait);
      if (each === boot) root = file;
      else data.push(await adoptFile(cloud, pool, file, nameFor(file), wait));
    }
    if (known === undefined) await forgetVolume(cloud, pool, root, wait);
    const machine = await imported(cloud, pool, scope, spec, shape, root, wait);
    const volume = await adoptedVolume(cloud, pool, root, wait);
    if (volume === undefined)
      throw cloudstackError("UNEXPECTED", `Machine ${machine.id} has no volume of file ${root}.`);
    await renameVolume(cloud, volume.id, nameFor(root), wait);
    await addCards(cloud, machine.id, shape, wait);
    await complete(cloud, machine, data, shape, wait);
    if (cloud.options.launch?.start !== false) await startMachine(cloud, machine.id, wait);
    return describe((await cloud.machine(machine.id, wait)) ?? machine, [
      ...shape.notes,
      ...(await notesOf(cloud, shape, wait)),
    ]);
  } catch (error) {
    if (known === undefined && isProviderError(error) && !error.retryable && !(signal?.aborted ?? false)) {
      const begun = await launchedMachine(cloud, scope, wait);
      const ending = { scope, machineId: begun?.id, purpose: "test" } as const;
      try {
        await terminateMachine(cloud, ending, (volume) => replicas.isOne(volume, ids), wait);
        for (const id of ids) await replicas.find(id, wait);
        await removeCopiesOf(place, scope, wait);
      } catch (failure) {
        cloud.notice(`What the launch made could not all be undone (${error.message}): ${String(failure)}`);
      }
    }
    throw error;
  }
}

/** The file that a disk boots from: the replica's own, or for a test a copy of it. */
async function fileFor(
  place: ImportPlace,
  scope: LaunchScope,
  { disk, volume }: LaunchDisk,
  purpose: "test" | "cutover",
  known: CloudMachine | undefined,
  wait: Wait,
): Promise<string> {
  const { cloud, folder } = place;
  // Nobody may write it: not while it is copied, nor while it is a machine's.
  await freed(cloud, await filesAsReplicas(place).find(volume.id, wait), known, wait);
  if (purpose === "cutover") return volume.id;
  const file = `${launchName(scope, diskNote("clone", disk))}${ENDING}`;
  await folder.copy(volume.id, file, wait);
  return file;
}

async function imported(
  cloud: Cloud,
  pool: ImportPool,
  scope: LaunchScope,
  spec: MachineSpec,
  shape: MachineShape,
  file: string,
  wait: Wait,
): Promise<CloudMachine> {
  const name = hostName(spec.name, launchName(scope));
  const [card] = shape.cards;
  if (card === undefined)
    throw cloudstackError(
      "CONFIG_INVALID",
      "importVm wants a network: name one in launch.networks or launch.testNetwork.",
    );
  const machine = await ensure(
    cloud.client,
    {
      object: `machine ${name}`,
      look: () => launchedMachine(cloud, scope, wait),
      jobOf: (state) => state?.jobId,
      done: (state) => state?.state === "Stopped" || state?.state === "Running",
      command: (state) => {
        if (state !== undefined)
          throw cloudstackError(
            "UNEXPECTED",
            `Machine ${state.id} (${name}) is in state ${state.state}; see its events.`,
          );
        return {
          command: "importVm",
          parameters: {
            importsource: pool.isLocal ? "local" : "shared",
            hypervisor: "KVM",
            storageid: pool.id,
            diskpath: file,
            name,
            displayname: spec.name ?? name,
            networkid: card.networkId,
            serviceofferingid: shape.parameters["serviceofferingid"],
            ...detailsOf(shape),
          },
        };
      },
      prepare: async () => ({
        zoneid: await cloud.zoneId(wait),
        clusterid: pool.clusterId ?? (await anyCluster(cloud, wait)),
        ...(pool.isLocal ? { hostid: await hostOf(cloud, wait) } : {}),
        ...((await cloud.reaches(TAKES_ADDRESSES, wait)) ? { macaddress: card.mac, ipaddress: card.address } : {}),
        ...(await cloud.scope(wait)),
      }),
    },
    wait,
  );
  if (machine === undefined) throw cloudstackError("UNEXPECTED", `Machine ${name} was imported and is not there.`);
  return machine;
}

/** Size, controllers and firmware: `importVm` knows the firmware as a detail alone. */
function detailsOf({ parameters }: MachineShape): Record<string, string> {
  const details = Object.fromEntries(
    Object.entries(parameters).flatMap(([name, value]) => (name.startsWith("details[") ? [[name, String(value)]] : [])),
  );
  if (parameters["boottype"] !== "UEFI") return details;
  return { ...details, ...mapParameter("details", { UEFI: String(parameters["bootmode"]) }) };
}

async function anyCluster(cloud: Cloud, wait: Wait): Promise<string> {
  for await (const { id } of cloud.choices(
    "listClusters",
    { zoneid: await cloud.zoneId(wait), hypervisor: "KVM" },
    wait,
  ))
    return id;
  throw cloudstackError("UNSUPPORTED", "The zone has no cluster of KVM hosts: importVm makes machines there alone.", {
    operation: "launch",
  });
}

async function hostOf(cloud: Cloud, wait: Wait): Promise<string> {
  const { host, pool } = cloud.options.import ?? {};
  if (host === undefined) {
    throw cloudstackError("CONFIG_INVALID", `Pool ${pool} is a host's own storage: name that host in import.host.`, {
      operation: "launch",
    });
  }
  return (await cloud.choice("listHosts", host, "host", { zoneid: await cloud.zoneId(wait), type: "Routing" }, wait))
    .id;
}

/** `importVm` gives a machine one card. */
async function addCards(cloud: Cloud, id: string, { cards }: MachineShape, wait: Wait): Promise<void> {
  for (const { networkId, mac, address } of cards.slice(1)) {
    await ensure(
      cloud.client,
      {
        object: `machine ${id} in network ${networkId}`,
        look: () => cloud.machine(id, wait),
        jobOf: (state) => state?.jobId,
        done: (state) => state?.cards.some((card) => card.networkId === networkId) === true,
        command: () => ({
          command: "addNicToVirtualMachine",
          parameters: { virtualmachineid: id, networkid: networkId, macaddress: mac, ipaddress: address },
        }),
      },
      wait,
    );
  }
}

async function notesOf(cloud: Cloud, { cards }: MachineShape, wait: Wait): Promise<string[]> {
  const [first] = cards;
  const wishes = first !== undefined && (first.mac !== undefined || first.address !== undefined);
  if (!wishes || (await cloud.reaches(TAKES_ADDRESSES, wait))) return [];
  return [`The first card has other addresses than were asked for: importVm takes none before ${TAKES_ADDRESSES}.`];
}

/** Removes what a test copied and CloudStack did not delete: copies that were never adopted. */
export async function removeCopies(place: ImportPlace, { data }: LaunchedMachine, wait: Wait): Promise<void> {
  const { job, key } = data ?? {};
  if (typeof job === "string" && typeof key === "string") await removeCopiesOf(place, { job, key }, wait);
}

async function removeCopiesOf({ cloud, folder, pool }: ImportPlace, scope: LaunchScope, wait: Wait): Promise<void> {
  for (const name of await folder.list()) {
    const file = name.replace(/\.part$/, "");
    const own = ownNameOf(file);
    const isCopy = own?.job === scope.job && own.key === scope.key && own.note?.startsWith("clone") === true;
    if (isCopy && (await adoptedVolume(cloud, await pool(wait), file, wait)) === undefined) await folder.remove(file);
  }
}
