import { type AnswerObject, flagIn, numberIn, objectIn, objectsIn, textIn, timeIn } from "./decode.ts";

/** A volume. */
export interface CloudVolume {
  id: string;
  name: string;
  /** `Allocated` until it is first attached: no pool, no bytes. */
  state: string;
  type: "ROOT" | "DATADISK";
  /** Bytes. */
  size: number;
  zoneId: string | undefined;
  machineId: string | undefined;
  machineName: string | undefined;
  machineState: string | undefined;
  deviceId: number | undefined;
  snapshotId: string | undefined;
  diskOfferingId: string | undefined;
  /** Of a volume that goes back to a template. */
  templateId: string | undefined;
  storageType: string | undefined;
  /** Administrators alone are told: the pool, and the file's name there. */
  poolId: string | undefined;
  path: string | undefined;
  hypervisor: string | undefined;
  created: string | undefined;
  deleteProtected: boolean;
  tags: Readonly<Record<string, string>>;
  /** A job that works on it. */
  jobId: string | undefined;
}

/** A virtual machine. */
export interface CloudMachine {
  id: string;
  name: string;
  displayName: string;
  state: string;
  zoneId: string | undefined;
  hypervisor: string | undefined;
  cpus: number | undefined;
  /** MiB. */
  memory: number | undefined;
  osName: string | undefined;
  osTypeId: string | undefined;
  /** Of what it was deployed from. */
  templateName: string | undefined;
  bootType: string | undefined;
  bootMode: string | undefined;
  details: Readonly<Record<string, string>>;
  cards: {
    networkId: string | undefined;
    network: string | undefined;
    mac: string | undefined;
    address: string | undefined;
  }[];
  tags: Readonly<Record<string, string>>;
  jobId: string | undefined;
}

/** A snapshot of a volume. */
export interface CloudSnapshot {
  id: string;
  name: string;
  state: string;
  volumeId: string | undefined;
  /** Of the volume at that time, bytes. */
  size: number | undefined;
  created: string | undefined;
  tags: Readonly<Record<string, string>>;
  jobId: string | undefined;
}

/** A template. */
export interface CloudTemplate {
  id: string;
  name: string;
  /** False as long as it has no bytes. */
  isReady: boolean;
  /** Of its disk, bytes. */
  size: number | undefined;
  jobId: string | undefined;
}

/** A snapshot of a whole machine. */
export interface CloudMachineSnapshot {
  id: string;
  name: string;
  displayName: string;
  state: string;
  machineId: string | undefined;
  created: string | undefined;
  jobId: string | undefined;
}

/** An asynchronous job. */
export interface CloudJob {
  id: string;
  command: string;
  status: "pending" | "done" | "failed";
  /** The error's code of a failed job. */
  resultCode: number;
  /** What it made or says, without its envelope; a failed job's text where it is no object. */
  result: AnswerObject;
  text: string | undefined;
  instanceId: string | undefined;
}

/** Something to choose from: a zone, an offering, a network, a template, an operating system. */
export interface CloudChoice {
  id: string;
  name: string;
  /** All that the platform says of it. */
  about: AnswerObject;
}

function tagsIn(value: unknown): Record<string, string> {
  const tags: Record<string, string> = {};
  for (const tag of objectsIn(value)) {
    const key = textIn(tag["key"]);
    if (key !== undefined) tags[key] = textIn(tag["value"]) ?? "";
  }
  return tags;
}

function textsIn(value: unknown): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const [name, member] of Object.entries(objectIn(value))) {
    const text = textIn(member);
    if (text !== undefined) texts[name] = text;
  }
  return texts;
}

const idOf = (answer: AnswerObject): string => textIn(answer["id"]) ?? "";
const pendingJob = (answer: AnswerObject): string | undefined => {
  const status = numberIn(answer["jobstatus"]);
  return status === undefined || status === 0 ? textIn(answer["jobid"]) : undefined;
};

/** Reads a volume. */
export function volumeOf(answer: AnswerObject): CloudVolume {
  return {
    id: idOf(answer),
    name: textIn(answer["name"]) ?? "",
    state: textIn(answer["state"]) ?? "",
    type: textIn(answer["type"]) === "ROOT" ? "ROOT" : "DATADISK",
    size: numberIn(answer["size"]) ?? 0,
    zoneId: textIn(answer["zoneid"]),
    machineId: textIn(answer["virtualmachineid"]),
    machineName: textIn(answer["vmdisplayname"]) ?? textIn(answer["vmname"]),
    machineState: textIn(answer["vmstate"]),
    deviceId: numberIn(answer["deviceid"]),
    snapshotId: textIn(answer["snapshotid"]),
    diskOfferingId: textIn(answer["diskofferingid"]),
    templateId: textIn(answer["templateid"]),
    storageType: textIn(answer["storagetype"]),
    poolId: textIn(answer["storageid"]),
    path: textIn(answer["path"]),
    hypervisor: textIn(answer["hypervisor"]),
    created: timeIn(answer["created"]),
    deleteProtected: flagIn(answer["deleteprotection"]) ?? false,
    tags: tagsIn(answer["tags"]),
    jobId: pendingJob(answer),
  };
}

/** Reads a virtual machine. */
export function machineOf(answer: AnswerObject): CloudMachine {
  const name = textIn(answer["name"]) ?? "";
  return {
    id: idOf(answer),
    name,
    displayName: textIn(answer["displayname"]) ?? name,
    state: textIn(answer["state"]) ?? "",
    zoneId: textIn(answer["zoneid"]),
    hypervisor: textIn(answer["hypervisor"]),
    cpus: numberIn(answer["cpunumber"]),
    memory: numberIn(answer["memory"]),
    osName: textIn(answer["osdisplayname"]),
    osTypeId: textIn(answer["ostypeid"]) ?? textIn(answer["guestosid"]),
    templateName: textIn(answer["templatename"]),
    bootType: textIn(answer["boottype"]),
    bootMode: textIn(answer["bootmode"]),
    details: textsIn(answer["details"]),
    cards: objectsIn(answer["nic"]).map((card) => ({
      networkId: textIn(card["networkid"]),
      network: textIn(card["networkname"]),
      mac: textIn(card["macaddress"]),
      address: textIn(card["ipaddress"]),
    })),
    tags: tagsIn(answer["tags"]),
    jobId: pendingJob(answer),
  };
}

/** Reads a snapshot of a volume. */
export function snapshotOf(answer: AnswerObject): CloudSnapshot {
  return {
    id: idOf(answer),
    name: textIn(answer["name"]) ?? "",
    state: textIn(answer["state"]) ?? "",
    volumeId: textIn(answer["volumeid"]),
    size: numberIn(answer["virtualsize"]),
    created: timeIn(answer["created"]),
    tags: tagsIn(answer["tags"]),
    jobId: pendingJob(answer),
  };
}

/** Reads a template. */
export function templateOf(answer: AnswerObject): CloudTemplate {
  return {
    id: idOf(answer),
    name: textIn(answer["name"]) ?? "",
    isReady: flagIn(answer["isready"]) ?? false,
    size: numberIn(answer["size"]),
    jobId: pendingJob(answer),
  };
}

/** Reads a snapshot of a machine. */
export function machineSnapshotOf(answer: AnswerObject): CloudMachineSnapshot {
  const name = textIn(answer["name"]) ?? "";
  return {
    id: idOf(answer),
    name,
    displayName: textIn(answer["displayname"]) ?? name,
    state: textIn(answer["state"]) ?? "",
    machineId: textIn(answer["virtualmachineid"]),
    created: timeIn(answer["created"]),
    jobId: pendingJob(answer),
  };
}

/**
 * Reads a job: 0 is pending, 1 done, 2 failed, 3 cancelled (`JobInfo.Status`), and what else there may be is no longer pending;
 * an old server's failure is a bare text, a new one's an object.
 */
export function jobOf(answer: AnswerObject): CloudJob {
  const status = numberIn(answer["jobstatus"]);
  const result = objectIn(answer["jobresult"]);
  return {
    id: textIn(answer["jobid"]) ?? "",
    command: (textIn(answer["cmd"]) ?? "").replace(/^.*\./, "").replace(/Cmd$/, ""),
    status: status === 1 ? "done" : (status ?? 0) === 0 ? "pending" : "failed",
    resultCode: numberIn(answer["jobresultcode"]) ?? numberIn(result["errorcode"]) ?? 0,
    result,
    text:
      textIn(answer["jobresult"]) ??
      textIn(result["errortext"]) ??
      (status === 3 ? "the job was cancelled" : undefined),
    instanceId: textIn(answer["jobinstanceid"]),
  };
}

/** Reads anything with an id and a name. */
export function choiceOf(answer: AnswerObject): CloudChoice {
  const id = idOf(answer);
  return { id, name: textIn(answer["name"]) ?? textIn(answer["description"]) ?? id, about: answer };
}
