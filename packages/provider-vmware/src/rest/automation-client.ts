import type { PowerState, Wait } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";
import { statusError } from "../vim/http-status.ts";
import { parseJson } from "../vim/parse-json.ts";
import type { HttpAnswer, HttpRequest, VimHttp } from "../vim/vim-http.ts";

/** A machine as the Automation API lists it; templates are not listed. */
export interface ListedMachine {
  /** The same as the moref of vim25. */
  readonly moref: string;
  readonly name: string;
  readonly power: PowerState | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
}

/** A machine as the Automation API details it. */
export interface DetailedMachine {
  readonly name: string;
  readonly instanceUuid: string | undefined;
  readonly power: PowerState | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly firmware: "bios" | "uefi" | undefined;
  /** By device key. */
  readonly disks: readonly { key: string; size: number; label: string | undefined }[];
  readonly macs: readonly string[];
}

/** `/api` came with 7.0; `/rest` is older, wraps every answer in `value` and writes maps as lists. */
type Style = "api" | "rest";

const powerStates: Readonly<Record<string, PowerState>> = {
  POWERED_ON: "on",
  POWERED_OFF: "off",
  SUSPENDED: "suspended",
};

/**
 * The vSphere Automation API, REST style: lists thousands of machines in one answer (4,000 at most). It knows neither
 * snapshots nor change tracking. vCenter only.
 */
export class AutomationClient implements AsyncDisposable {
  readonly #http: VimHttp;
  readonly #authorization: string;
  #session: string | undefined;
  #style: Style = "api";

  constructor(http: VimHttp, login: { readonly userName: string; readonly password: string }) {
    this.#http = http;
    this.#authorization = `Basic ${Buffer.from(`${login.userName}:${login.password}`).toString("base64")}`;
  }

  /**
   * Machines, all or those of exactly these names.
   *
   * @throws ProviderError UNSUPPORTED where the server has no such API, or more than 4,000 machines match
   */
  async list(filter: { names?: readonly string[] } = {}, wait: Wait = {}): Promise<ListedMachine[]> {
    const json = await this.#call(
      "GET",
      (style) => {
        const name = style === "api" ? "names" : "filter.names.";
        const query = (filter.names ?? []).map((each, index) => {
          const key = style === "api" ? name : `${name}${index + 1}`;
          return `${key}=${encodeURIComponent(each)}`;
        });
        return `/vcenter/vm${query.length === 0 ? "" : `?${query.join("&")}`}`;
      },
      wait,
    );
    return arrayOf(json).map((each) => ({
      moref: textOf(each["vm"]) ?? "",
      name: textOf(each["name"]) ?? "",
      power: powerStates[textOf(each["power_state"]) ?? ""],
      cpus: numberOf(each["cpu_count"]),
      memoryBytes: mebibytes(each["memory_size_MiB"]),
    }));
  }

  /** One machine with its disks. @throws ProviderError NOT_FOUND */
  async detail(moref: string, wait: Wait = {}): Promise<DetailedMachine> {
    const json = objectOf(await this.#call("GET", () => `/vcenter/vm/${encodeURIComponent(moref)}`, wait));
    return {
      name: textOf(json["name"]) ?? "",
      instanceUuid: textOf(objectOf(json["identity"])["instance_uuid"]),
      power: powerStates[textOf(json["power_state"]) ?? ""],
      cpus: numberOf(objectOf(json["cpu"])["count"]),
      memoryBytes: mebibytes(objectOf(json["memory"])["size_MiB"]),
      firmware: firmwareOf(textOf(objectOf(json["boot"])["type"])),
      disks: entriesOf(json["disks"]).map(([key, disk]) => ({
        key,
        size: numberOf(disk["capacity"]) ?? 0,
        label: textOf(disk["label"]),
      })),
      macs: entriesOf(json["nics"]).flatMap(([, card]) => textOf(card["mac_address"]) ?? []),
    };
  }

  /** A machine's power state. */
  async power(moref: string, wait: Wait = {}): Promise<PowerState> {
    const json = objectOf(await this.#call("GET", () => `/vcenter/vm/${encodeURIComponent(moref)}/power`, wait));
    const state = powerStates[textOf(json["state"]) ?? ""];
    if (state === undefined) throw vsphereError("UNEXPECTED", `the power state of ${moref} is not told`);
    return state;
  }

  /** Ends the session. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#session === undefined) return;
    const path = this.#style === "api" ? "/api/session" : "/rest/com/vmware/cis/session";
    const headers = { "vmware-api-session-id": this.#session };
    this.#session = undefined;
    await this.#http.request(path, { method: "DELETE", headers, operation: "end session", timeoutMs: 5_000 });
  }

  async #call(method: "GET" | "POST", path: (style: Style) => string, wait: Wait): Promise<unknown> {
    for (let renewed = false; ; renewed = true) {
      this.#session ??= await this.#login(wait);
      const url = `/${this.#style}${path(this.#style)}`;
      const headers = { "vmware-api-session-id": this.#session, accept: "application/json" };
      const answer = await this.#http.request(url, { ...wait, method, headers, operation: `${method} ${this.#style}` });
      if (answer.status === 401 && !renewed) {
        this.#session = undefined;
        continue;
      }
      return this.#read(answer, url);
    }
  }

  async #login(wait: Wait): Promise<string> {
    const request: HttpRequest = {
      ...wait,
      method: "POST",
      headers: { authorization: this.#authorization },
      operation: "session",
    };
    this.#style = "api";
    let answer = await this.#http.request("/api/session", request);
    if (answer.status === 404) {
      this.#style = "rest";
      answer = await this.#http.request("/rest/com/vmware/cis/session", request);
    }
    if (answer.status === 404) {
      throw vsphereError("UNSUPPORTED", `${this.#http.host} has no Automation API (vCenter 6.5 and newer)`);
    }
    const session = this.#read(answer, "session");
    if (typeof session !== "string") throw vsphereError("UNEXPECTED", `${this.#http.host} gave no session`);
    return session;
  }

  #read(answer: HttpAnswer, operation: string): unknown {
    let json: unknown;
    try {
      json = answer.body === "" ? undefined : parseJson(answer.body);
    } catch (cause) {
      if (answer.status < 300) {
        throw vsphereError("UNAVAILABLE", `${operation} at ${this.#http.host}: the answer cannot be read`, { cause });
      }
    }
    if (answer.status < 300) return this.#style === "rest" ? objectOf(json)["value"] : json;
    if (/UNABLE_TO_ALLOCATE_RESOURCE/i.test(answer.body)) {
      throw vsphereError("UNSUPPORTED", `${this.#http.host} has more machines than one answer may hold`);
    }
    throw statusError(answer, operation, this.#http.host);
  }
}

function objectOf(json: unknown): Record<string, unknown> {
  return typeof json === "object" && json !== null && !Array.isArray(json) ? (json as Record<string, unknown>) : {};
}

function arrayOf(json: unknown): Record<string, unknown>[] {
  return Array.isArray(json) ? json.map(objectOf) : [];
}

/** A map by key: `/api` writes an object, `/rest` a list of `key` and `value`. */
function entriesOf(json: unknown): [string, Record<string, unknown>][] {
  if (Array.isArray(json))
    return json.map(objectOf).map((each) => [textOf(each["key"]) ?? "", objectOf(each["value"])]);
  return Object.entries(objectOf(json)).map(([key, value]) => [key, objectOf(value)]);
}

function textOf(json: unknown): string | undefined {
  return typeof json === "string" ? json : undefined;
}

function numberOf(json: unknown): number | undefined {
  return typeof json === "number" && Number.isSafeInteger(json) ? json : undefined;
}

function mebibytes(json: unknown): number | undefined {
  const number = numberOf(json);
  return number === undefined ? undefined : number * 2 ** 20;
}

function firmwareOf(type: string | undefined): "bios" | "uefi" | undefined {
  return type === "EFI" ? "uefi" : type === "BIOS" ? "bios" : undefined;
}
