import { createHmac } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { CloudstackCredentials, CloudstackSimulator } from "../../src/cloudstack/cloudstack-simulator.ts";

/** An answer, read as a person with curl would: every field that these tests look at, there or not. */
export interface Json {
  readonly id: string;
  readonly name: string;
  readonly url: string;
  readonly state: string;
  readonly type: string;
  readonly created: string;
  readonly errortext: string;
  readonly jobid: string;
  readonly cmd: string;
  readonly sessionkey: string;
  readonly postURL: string;
  readonly metadata: string;
  readonly expires: string;
  readonly signature: string;
  readonly storageid: string;
  readonly domainid: string;
  readonly description: string;
  readonly networkname: string;
  readonly projectid: string;
  readonly count: number;
  readonly errorcode: number;
  readonly cserrorcode: number;
  readonly jobstatus: number;
  readonly jobresultcode: number;
  readonly deviceid: number;
  readonly size: number;
  readonly cpunumber: number;
  readonly volume: Json & readonly [Json, ...Json[]];
  readonly virtualmachine: Json & readonly [Json, ...Json[]];
  readonly template: Json & readonly [Json, ...Json[]];
  readonly cluster: readonly [Json, ...Json[]];
  readonly snapshot: Json & readonly [Json, ...Json[]];
  readonly vmsnapshot: Json & readonly [Json, ...Json[]];
  readonly api: Json & readonly [Json, ...Json[]];
  readonly asyncjobs: Json & readonly [Json, ...Json[]];
  readonly tags: Json & readonly [Json, ...Json[]];
  readonly nic: Json & readonly [Json, ...Json[]];
  readonly project: Json & readonly [Json, ...Json[]];
  readonly account: Json & readonly [Json, ...Json[]];
  readonly resourcelimit: Json & readonly [Json, ...Json[]];
  readonly ostype: Json & readonly [Json, ...Json[]];
  readonly jobresult: Json;
  readonly details: Json;
  readonly capability: Json;
  readonly getuploadparams: Json;
  readonly nicAdapter?: string;
  readonly success: boolean;
}

/** What the API answered. */
export interface Reply {
  readonly status: number;
  /** The name of the envelope: `createvolumeresponse`. */
  readonly envelope: string;
  readonly body: Json;
}

/** Java's URLEncoder in the words of its documentation: letters, digits and . - * _ stay. */
function javaEncoded(text: string): string {
  let out = "";
  for (const byte of Buffer.from(text, "utf8")) {
    const character = String.fromCharCode(byte);
    out += /[A-Za-z0-9.\-*_]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** The signature that the API wants, computed on its own for these tests. */
export function sign(parameters: Readonly<Record<string, string>>, secretKey: string): string {
  const names = Object.keys(parameters).sort();
  const text = names.map((name) => `${name}=${javaEncoded(parameters[name] ?? "")}`).join("&");
  return createHmac("sha1", secretKey).update(text.toLowerCase()).digest("base64");
}

/** A person with curl: signs, sends, reads. */
export class ApiClient {
  readonly #simulator: CloudstackSimulator;
  readonly #keys: CloudstackCredentials;

  constructor(simulator: CloudstackSimulator, keys: CloudstackCredentials = simulator.tenant) {
    this.#simulator = simulator;
    this.#keys = keys;
  }

  /** One call, whatever it answers; `signature` of the parameters replaces the right one. */
  async send(
    command: string,
    parameters: Record<string, string> = {},
    method: "GET" | "POST" = "POST",
  ): Promise<Reply> {
    const signed = { command, response: "json", apikey: this.#keys.apiKey, ...parameters };
    const form = new URLSearchParams({ signature: sign(signed, this.#keys.secretKey), ...signed });
    const answer =
      method === "POST"
        ? await fetch(this.#simulator.url, { method: "POST", body: form })
        : await fetch(`${this.#simulator.url}?${form.toString().replaceAll("+", "%20")}`);
    return replyOf(answer);
  }

  /** A call that has to be answered with 200. */
  async call(command: string, parameters: Record<string, string> = {}): Promise<Json> {
    const { status, body } = await this.send(command, parameters);
    if (status !== 200) throw new Error(`${command}: ${status} ${JSON.stringify(body)}`);
    return body;
  }

  /** An asynchronous call and its job to the end, whatever the end. */
  async job(command: string, parameters: Record<string, string> = {}): Promise<Json> {
    const { jobid } = await this.call(command, parameters);
    for (let tries = 0; tries < 500; tries++) {
      const job = await this.call("queryAsyncJobResult", { jobid });
      if (job.jobstatus !== 0) return job;
      await sleep(2);
    }
    throw new Error(`the job of ${command} does not end`);
  }

  /** An asynchronous call that has to succeed; the job's result. */
  async done(command: string, parameters: Record<string, string> = {}): Promise<Json> {
    const job = await this.job(command, parameters);
    if (job.jobstatus !== 1) throw new Error(`${command} failed: ${JSON.stringify(job.jobresult)}`);
    return job.jobresult;
  }

  /** A volume of so many GiB that nothing holds yet. */
  async volume(name: string, gib = 1, more: Record<string, string> = {}): Promise<string> {
    const { zoneId, diskOfferings } = this.#simulator;
    const offering = more["diskofferingid"] ?? diskOfferings["Custom"] ?? "";
    const given = { name, zoneid: zoneId, size: String(gib), ...more, diskofferingid: offering };
    return (await this.done("createVolume", given)).volume.id;
  }

  /** A machine from the small template. */
  async machine(name: string, more: Record<string, string> = {}): Promise<string> {
    const { zoneId, serviceOfferings, templates } = this.#simulator;
    const given = {
      name,
      zoneid: zoneId,
      serviceofferingid: serviceOfferings["Small Instance"] ?? "",
      templateid: templates["tiny Linux"] ?? "",
      startvm: "false",
      ...more,
    };
    return (await this.done("deployVirtualMachine", given)).virtualmachine.id;
  }
}

/** Reads an envelope. */
export async function replyOf(answer: Response): Promise<Reply> {
  const [first] = Object.entries((await answer.json()) as Record<string, Json>);
  if (first === undefined) throw new Error(`an answer ${answer.status} without an envelope`);
  const [envelope, body] = first;
  return { status: answer.status, envelope, body };
}

/** Waits until something is so. @throws Error when it does not become so */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await condition()) return;
    await sleep(4);
  }
  throw new Error("it did not become so");
}
